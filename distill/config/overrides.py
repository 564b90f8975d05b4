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
        if key == "loss" and isinstance(settings[key], list | tuple):
            continue
        if not name or "." in name:
            raise DistillError(f"--set {key}: is not a config key; write GROUP.KEY=VALUE, such as optim.lr=0.001")
        if (
            group == "loss"
            and ("loss.name" in settings or "loss" in settings)
            and not isinstance(value.get(group), dict)
        ):
            value[group] = {}  # one loss replaces a list of losses
        if isinstance(value.setdefault(group, {}), list | tuple) and group == "loss":
            action = "set the whole list, such as loss=[{name: kl}, {name: hard, weight: 0.1}], or set loss.name"
            raise DistillError(f"--set {key}: the config has a list of losses; {action}")
        if not isinstance(value[group], dict):
            raise DistillError(f"--set {key}: {group!r} is not a group of keys in the config; correct the config")
    for group in {key.partition(".")[0] for key in settings if "." in key}:
        own = {f"{group}.{name}": item for name, item in value[group].items()}
        kept = {key: item for key, item in own.items() if not _is_void(key, {"loss.name": "kl"} | own, settings)}
        given = {key: item for key, item in settings.items() if key.startswith(f"{group}.")}
        value[group] = {key.partition(".")[2]: item for key, item in (kept | given).items()}
    if "loss" in settings:
        if more := sorted(key for key in settings if key.startswith("loss.")):
            raise DistillError(f"loss and {more[0]} are both set; set only one")
        value["loss"] = list(settings["loss"])


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
    group, _, field = key.partition(".")
    if (
        _is_unused(key, values, layer)
        or (key == "loss.weight" and "loss.temperature" in layer)
        or (group == "loss" and "loss" in layer)  # a list of losses replaces one loss
        or (key == "loss" and "loss.name" in layer)  # the reverse
    ):
        return True
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
