"""Merge settings of ``--set`` (values by ``GROUP.KEY``), and apply them to a config.

A later setting removes earlier settings that it makes meaningless.
"""

import typing
from collections.abc import Mapping
from typing import Any

from distill.errors import DistillError
from distill.optim.config import OptimConfig
from distill.targets.losses import LossConfig

LENGTHS = frozenset({"train.samples", "train.epochs"})  # a setting of one removes the other
_NAMED = {"loss": LossConfig, "optim": OptimConfig}  # groups whose ``name`` determines their other keys
_UNUSED = {"optim.warmup": ("onecycle",)} | dict.fromkeys(
    ("optim.milestones", "optim.gamma"), ("constant", "cosine", "linear", "onecycle")
)
"""Keys, and the schedules that do not use the key."""


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all ``layers`` as one dict. A later layer overrides the earlier layers."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _require_one_length(layer)
        merged = {key: item for key, item in merged.items() if not _is_void(key, merged, layer)} | dict(layer)
    return merged


def apply_settings(value: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Apply ``settings`` to the config ``value``, a nested dict, in place."""
    _require_one_length(settings)
    for key in settings:
        group, _, name = key.partition(".")
        if not name or "." in name:
            raise DistillError(f"--set {key}: is not a config key; write GROUP.KEY=VALUE, such as optim.lr=0.001")
        if not isinstance(value.setdefault(group, {}), dict):
            raise DistillError(f"--set {key}: {group!r} is not a group of keys in the config; correct the config")
    for group in {key.partition(".")[0] for key in settings}:
        own = {f"{group}.{name}": item for name, item in value[group].items()}
        kept = {key: item for key, item in own.items() if not _is_void(key, {"loss.name": "kl"} | own, settings)}
        given = {key: item for key, item in settings.items() if key.startswith(f"{group}.")}
        value[group] = {key.partition(".")[2]: item for key, item in (kept | given).items()}


def _require_one_length(layer: Mapping[str, Any]) -> None:
    if all(layer.get(key) is not None for key in LENGTHS):
        found = " and ".join(f"{key} {layer[key]}" for key in sorted(LENGTHS))
        raise DistillError(f"{found} are both set; set only one")


def _is_void(key: str, values: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    """Return whether ``layer``, which is applied later, makes the value of ``key`` in ``values`` meaningless.

    For example, a new loss or a new temperature makes the old loss weight meaningless.
    """
    if key in LENGTHS:
        return any(layer.get(other) is not None for other in LENGTHS - {key})
    if _is_unused(key, values, layer) or (key == "loss.weight" and "loss.temperature" in layer):
        return True
    group, _, field = key.partition(".")
    if group not in _NAMED or f"{group}.name" not in layer:
        return False
    name = layer[f"{group}.name"]
    if name == values.get(f"{group}.name"):
        return False
    name = "function" if ":" in str(name) else name  # code of the user
    for model in typing.get_args(typing.get_args(_NAMED[group])[0]):
        if name in typing.get_args(model.model_fields["name"].annotation):
            return field not in model.model_fields or key in ("loss.weight", "optim.arguments", "optim.function")
    return False  # the name is unknown, and validation reports it


def _is_unused(key: str, values: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    """Return whether ``layer`` has another schedule, which does not use the value of ``key`` in ``values``."""
    schedule = str(layer.get("optim.schedule", ""))
    if key == "optim.schedule_arguments":
        return "optim.schedule" in layer and schedule != values.get("optim.schedule")
    return schedule in _UNUSED.get(key, ()) or (":" in schedule and key in ("optim.milestones", "optim.gamma"))
