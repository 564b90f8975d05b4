"""Settings as ``--set`` gives them, values by ``GROUP.KEY``, laid over one another and over a config's value.

A later setting removes the earlier ones that it makes void, so that the result does not depend on the order of keys.
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

_VOID_WITH: dict[str, tuple[str, ...]] = {
    "optim.milestones": ("constant", "cosine", "onecycle"),
    "optim.gamma": ("constant", "cosine", "onecycle"),
    "optim.warmup": ("onecycle",),
}
"""Keys, and the schedules that do not have them."""


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all ``layers``, each laid over those before it.

    Raises:
        DistillError: a layer contradicts itself.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _require_one_length(layer)
        names = {group: merged.get(f"{group}.name") for group in _NAMED}
        kept = {key: value for key, value in merged.items() if key not in layer and not _is_void(key, names, layer)}
        merged = kept | dict(layer)
    return merged


def lay_over(value: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Lay ``settings`` over the groups of a config, ``value``, in place.

    Raises:
        DistillError: a setting is no ``GROUP.KEY``, or ``settings`` contradict themselves.
    """
    _require_one_length(settings)
    for key in settings:
        group, _, name = key.partition(".")
        if not name or "." in name:
            raise DistillError(f"--set {key}: expected GROUP.KEY=VALUE, such as optim.lr=0.001")
        if not isinstance(value.setdefault(group, {}), dict):
            raise DistillError(f"--set {key}: {group!r} is no group of keys")
    groups = {group: value[group] for group in dict.fromkeys(key.partition(".")[0] for key in settings)}
    names = {group: groups.get(group, {}).get("name", "kl" if group == "loss" else None) for group in _NAMED}
    for group, inner in groups.items():
        for name in [name for name in inner if _is_void(f"{group}.{name}", names, settings)]:
            del inner[name]
    for key, item in settings.items():
        group, _, name = key.partition(".")
        groups[group][name] = item


def _require_one_length(layer: Mapping[str, Any]) -> None:
    if all(layer.get(key) is not None for key in LENGTHS):
        given = " and ".join(f"{key} {layer[key]}" for key in sorted(LENGTHS))
        raise DistillError(f"{given} are both set; one replaces the other, so give either")


def _is_void(key: str, names: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    """Whether ``layer`` leaves an earlier setting of ``key`` without a meaning.

    ``names`` are the earlier values of ``name`` by group. A weight belongs to one loss at one temperature: another
    does not inherit it.
    """
    if key in LENGTHS:
        return any(layer.get(other) is not None for other in LENGTHS - {key})
    schedule = layer.get("optim.schedule")
    if schedule is not None and schedule in _VOID_WITH.get(key, ()):
        return True
    if key == "loss.weight" and "loss.temperature" in layer:  # it was measured at another temperature
        return True
    group, _, field = key.partition(".")
    if f"{group}.name" not in layer or group not in _NAMED:
        return False
    name = layer[f"{group}.name"]
    model = _model(group, name)
    return model is not None and name != names[group] and (field not in model.model_fields or key == "loss.weight")


def _model(group: str, name: Any) -> type[BaseModel] | None:
    """The model of a group that has a ``name``; None where none has it, which whoever checks the config will say."""
    for model in typing.get_args(typing.get_args(_NAMED[group])[0]):
        if name in typing.get_args(model.model_fields["name"].annotation):
            found: type[BaseModel] = model
            return found
    return None
