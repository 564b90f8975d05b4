"""Settings of ``--set``, as values by ``GROUP.KEY``, merged with one another and applied to a config.

A later setting removes earlier ones that it makes meaningless, so the result does not depend on the order of keys.
"""

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from distill.errors import DistillError
from distill.optim import OptimConfig
from distill.targets.losses import LossConfig

LENGTHS = frozenset({"train.samples", "train.epochs"})
"""Each replaces the other."""

_NAMED = {"loss": LossConfig, "optim": OptimConfig}
"""Groups whose ``name`` decides which other keys they have."""

_UNUSED_BY_SCHEDULE: dict[str, tuple[str, ...]] = {
    "optim.milestones": ("constant", "cosine", "onecycle"),
    "optim.gamma": ("constant", "cosine", "onecycle"),
    "optim.warmup": ("onecycle",),
}
"""Keys, and the schedules that do not use them."""


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all ``layers``; later layers override earlier ones.

    Raises:
        DistillError: a layer sets both the samples and the epochs of a run.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _require_one_length(layer)
        merged = {key: item for key, item in merged.items() if not _is_void(key, merged, layer)} | dict(layer)
    return merged


def apply_settings(value: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Override keys of a config, the nested plain ``value``, in place.

    Raises:
        DistillError: a setting is not ``GROUP.KEY``, or both the samples and the epochs of a run are set.
    """
    _require_one_length(settings)
    for key in settings:
        group, _, name = key.partition(".")
        if not name or "." in name:
            raise DistillError(f"--set {key}: expected GROUP.KEY=VALUE, such as optim.lr=0.001")
        if not isinstance(value.setdefault(group, {}), dict):
            raise DistillError(f"--set {key}: {group!r} is no group of keys")
    groups = dict.fromkeys(key.partition(".")[0] for key in settings)
    values = {f"{group}.{name}": item for group in groups for name, item in value[group].items()}
    values = {"loss.name": "kl"} | values
    for group in groups:
        value[group] = {n: item for n, item in value[group].items() if not _is_void(f"{group}.{n}", values, settings)}
    for key, item in settings.items():
        group, _, name = key.partition(".")
        value[group][name] = item


def _require_one_length(layer: Mapping[str, Any]) -> None:
    if all(layer.get(key) is not None for key in LENGTHS):
        given = " and ".join(f"{key} {layer[key]}" for key in sorted(LENGTHS))
        raise DistillError(f"{given} are both set; one replaces the other, so give either")


def _is_void(key: str, values: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    """Return whether ``layer`` makes the earlier setting of ``key`` among ``values`` meaningless.

    A loss weight belongs to one loss at one temperature; another loss or temperature does not inherit it.
    """
    if key in LENGTHS:
        return any(layer.get(other) is not None for other in LENGTHS - {key})
    if layer.get("optim.schedule") in _UNUSED_BY_SCHEDULE.get(key, ()):
        return True
    if key == "loss.weight" and "loss.temperature" in layer:
        return True
    group, _, field = key.partition(".")
    if group not in _NAMED or f"{group}.name" not in layer:
        return False
    name = layer[f"{group}.name"]
    if name == values.get(f"{group}.name"):
        return False
    model = _model(group, name)
    return model is not None and (field not in model.model_fields or key == "loss.weight")


def _model(group: str, name: Any) -> type[BaseModel] | None:
    """Return the model of a group with this ``name``; None for an unknown name, which validation then reports."""
    for model in typing.get_args(typing.get_args(_NAMED[group])[0]):
        if name in typing.get_args(model.model_fields["name"].annotation):
            found: type[BaseModel] = model
            return found
    return None
