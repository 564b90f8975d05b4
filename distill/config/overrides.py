"""Settings of ``--set``, as values by ``GROUP.KEY``, merged with one another and applied to a config.

A later setting removes earlier ones that it makes meaningless, so the result does not depend on the order of keys.
"""

import typing
from collections.abc import Mapping
from typing import Any

from distill.errors import DistillError
from distill.optim import OptimConfig
from distill.targets.losses import LossConfig

LENGTHS = frozenset({"train.samples", "train.epochs"})  # each replaces the other
_NAMED = {"loss": LossConfig, "optim": OptimConfig}  # their ``name`` decides which other keys they have
_UNUSED = {"optim.warmup": ("onecycle",)} | dict.fromkeys(
    ("optim.milestones", "optim.gamma"), ("constant", "cosine", "onecycle")
)
"""Keys, and the schedules that do not use them."""


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all ``layers``; later layers override earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _require_one_length(layer)
        merged = {key: item for key, item in merged.items() if not _is_void(key, merged, layer)} | dict(layer)
    return merged


def apply_settings(value: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Override keys of a config, the nested plain ``value``, in place."""
    _require_one_length(settings)
    for key in settings:
        group, _, name = key.partition(".")
        if not name or "." in name:
            raise DistillError(f"--set {key}: expected GROUP.KEY=VALUE, such as optim.lr=0.001")
        if not isinstance(value.setdefault(group, {}), dict):
            raise DistillError(f"--set {key}: {group!r} is no group of keys")
    for group in {key.partition(".")[0] for key in settings}:
        held = {f"{group}.{name}": item for name, item in value[group].items()}
        kept = {key: item for key, item in held.items() if not _is_void(key, {"loss.name": "kl"} | held, settings)}
        given = {key: item for key, item in settings.items() if key.startswith(f"{group}.")}
        value[group] = {key.partition(".")[2]: item for key, item in (kept | given).items()}


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
    if layer.get("optim.schedule") in _UNUSED.get(key, ()) or (key == "loss.weight" and "loss.temperature" in layer):
        return True
    group, _, field = key.partition(".")
    if group not in _NAMED or f"{group}.name" not in layer:
        return False
    name = layer[f"{group}.name"]
    if name == values.get(f"{group}.name"):
        return False
    for model in typing.get_args(typing.get_args(_NAMED[group])[0]):
        if name in typing.get_args(model.model_fields["name"].annotation):
            return field not in model.model_fields or key == "loss.weight"
    return False  # an unknown name, which validation reports
