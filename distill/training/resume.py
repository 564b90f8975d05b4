"""Validate a checkpoint, which is untrusted, and load it into a trainer."""

import copy
import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import DamagedError
from distill.optim import state_keys
from distill.training.checkpoint import CHECKPOINT_NAME
from distill.training.run_dir import METRICS_NAME
from distill.training.trainer import Trainer
from distill.weights.load import put_state
from distill.weights.torch_files import are_finite
from manifests.support.counts import counted
from manifests.support.files import read_regular_file, write_atomically

ROW_BYTES = 400
"""The most bytes of ``metrics.jsonl`` for each step: a line of the loop and one of the evaluator."""
_MOVING = {
    "optimizer": frozenset({"lr", "momentum", "betas"}),
    "scheduler": frozenset({"last_epoch", "_step_count", "_is_initial", "_get_lr_called_within_step", "_last_lr"}),
    "scaler": frozenset({"scale", "_growth_tracker"}),
}
"""Values that steps change; all others must be those of the config."""
_OTHER_OUT = "choose another --out"


def restore(trainer: Trainer, out: Path, checkpoint: dict[str, Any] | None) -> None:
    """Load a checkpoint into ``trainer``, and cut the log back to its step; without one, remove the log."""
    metrics, state = out / METRICS_NAME, trainer.state
    if checkpoint is None:
        if trainer.ranks.is_main:
            metrics.unlink(missing_ok=True)
        return
    require_fit(trainer, checkpoint, str(out / CHECKPOINT_NAME))
    put_state(state.student, checkpoint["student"])
    state.optimizer.load_state_dict(copy.deepcopy(checkpoint["optimizer"]))  # a copy: the file's tensors are mapped
    state.scaler.load_state_dict(checkpoint["scaler"])
    state.scheduler.load_state_dict(checkpoint["scheduler"])
    if state.average is not None:
        put_state(state.average, checkpoint["average"])
    state.step, state.seconds = checkpoint["step"], checkpoint["seconds"]
    device = trainer.accelerator.context.device
    state.losses = [loss.to(device, copy=True) for loss in checkpoint["losses"]]
    if trainer.ranks.is_main and os.path.lexists(metrics):  # later steps will be done and logged again
        text = read_regular_file(metrics, (1 << 20) + ROW_BYTES * trainer.steps).decode(errors="replace")
        rows = [line for line in text.splitlines() if _row_step(line) <= state.step]
        write_atomically(metrics, "".join(row + "\n" for row in rows).encode())


def _row_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return float("inf")  # a line cut short by a crash


def require_fit(trainer: Trainer, state: dict[str, Any], where: str) -> None:
    """Check that everything in a checkpoint is built as in ``trainer``; only values that steps change may differ."""
    current = trainer.state
    parts: dict[str, Any] = {"student": current.student, "scaler": current.scaler, "scheduler": current.scheduler}
    for name, part in (parts | ({} if current.average is None else {"average": current.average})).items():
        own = part.state_dict()
        require_like(state[name], own, f"{where}: {name}")
        if name in _MOVING:
            _require_equal(state[name], own, _MOVING[name], f"{where}: {name}")
    require_optimizer(state["optimizer"], current.optimizer, f"{where}: optimizer")
    require_like([state["step"], state["seconds"]], [0, 0.0], f"{where}: step and seconds")
    step, losses = state["step"], state["losses"]
    if type(step) is not int or not 0 <= step <= trainer.steps or state["seconds"] < 1e-9 * step:
        raise DamagedError(f"{where}: step {step} of {trainer.steps} after {state['seconds']} s; {_OTHER_OUT}")
    if state["scheduler"]["last_epoch"] != step:
        raise DamagedError(f"{where}: scheduler.last_epoch is not the step, {step}; {_OTHER_OUT}")
    scale, tracker = (state["scaler"].get(key, 1) for key in ("scale", "_growth_tracker"))
    if not 0 < scale < 3e38 or not 0 <= tracker <= state["scaler"].get("growth_interval", 1):
        raise DamagedError(f"{where}: scaler.scale is {scale}, after {counted(tracker, 'step')}; {_OTHER_OUT}")
    if not isinstance(losses, list) or len(losses) > step or not all(map(_is_loss, losses)):
        raise DamagedError(f"{where}: losses: no list of single numbers, one a step; {_OTHER_OUT}")


def _is_loss(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point() and are_finite(value)


def require_like(held: Any, own: Any, where: str) -> None:
    """Check that ``held`` has the keys, lengths, types, shapes and dtypes of ``own``, and finite numbers only."""
    if isinstance(own, dict) and isinstance(held, dict):
        if unmatched := [key for key in (*held, *own) if (key in held) != (key in own)]:
            raise DamagedError(f"{where}: the key {str(unmatched[0])[:100]!r} is missing or too many; {_OTHER_OUT}")
        for key, value in own.items():
            require_like(held[key], value, f"{where}.{key}")
    elif isinstance(own, list | tuple) and isinstance(held, list | tuple):
        if len(held) != len(own):
            raise DamagedError(f"{where}: {counted(len(held), 'value')}, expected {len(own)}; {_OTHER_OUT}")
        for number, (inner, value) in enumerate(zip(held, own, strict=True)):
            require_like(inner, value, f"{where}[{number}]")
    elif isinstance(own, Tensor) and isinstance(held, Tensor):
        if (held.shape, held.dtype) != (own.shape, own.dtype):
            found, wanted = (f"{value.dtype} {tuple(value.shape)}" for value in (held, own))
            raise DamagedError(f"{where}: {found}, expected {wanted}; {_OTHER_OUT}")
        if not are_finite(held):
            raise DamagedError(f"{where}: holds what is no finite number; {_OTHER_OUT}")
    elif _are_numbers(own) or type(held) is not type(own):
        if _are_numbers(held, own):
            return
        raise DamagedError(f"{where}: {type(held).__name__}, expected {type(own).__name__}; {_OTHER_OUT}")


def _are_numbers(*values: object) -> bool:
    return all(
        (isinstance(value, int) and abs(value) < 1 << 63) or (isinstance(value, float) and math.isfinite(value))
        for value in values
    )


def _require_equal(held: dict[str, Any], own: dict[str, Any], moving: Collection[str], where: str) -> None:
    for key, value in own.items():
        if key not in moving and held[key] != value:
            raise DamagedError(f"{where}.{key}: {str(held[key])[:100]}, this run has {value}; {_OTHER_OUT}")


def require_optimizer(held: Any, optimizer: torch.optim.Optimizer, where: str) -> None:
    """Check that ``held`` is a state that steps of ``optimizer`` can have produced."""
    own = optimizer.state_dict()["param_groups"]
    if not isinstance(held, dict) or not isinstance(held.get("state"), dict):
        raise DamagedError(f"{where}: holds no state; {_OTHER_OUT}")
    require_like(held.get("param_groups"), own, f"{where}.param_groups")
    for group, its_own in zip(held["param_groups"], own, strict=True):
        _require_equal(group, its_own, _MOVING["optimizer"], f"{where}.param_groups")
        if group["lr"] < 0 or not all(
            0 <= value < 1 for value in (group.get("momentum", 0), *group.get("betas", ()))
        ):
            raise DamagedError(f"{where}.param_groups: a rate, momentum or beta out of range; {_OTHER_OUT}")
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    keys = state_keys(optimizer)
    for number, entry in held["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(entry, dict):
            raise DamagedError(f"{where}.state: has no such parameter as {str(number)[:100]!r}; {_OTHER_OUT}")
        if entry.keys() != keys:
            raise DamagedError(
                f"{where}.state[{number}]: holds {counted(len(entry), 'value')}, expected {sorted(keys)}; "
                f"{_OTHER_OUT}"
            )
        for key, value in entry.items():
            if not _fits_parameter(key, value, parameters[number]):
                raise DamagedError(f"{where}.state[{number}].{key}: does not fit; {_OTHER_OUT}")


def _fits_parameter(key: str, value: Any, parameter: Tensor) -> bool:
    """Return whether steps can have produced ``value``: finite, of the parameter's shape, squares not negative.

    The step count stays 0 if the first step of fp16 overflowed.
    """
    shape, dtype = (torch.Size(()), torch.float32) if key == "step" else (parameter.shape, parameter.dtype)
    if not isinstance(value, Tensor) or (value.shape, value.dtype) != (shape, dtype) or not are_finite(value):
        return False
    least = {"step": 0.0, "exp_avg_sq": 0.0}.get(key, -math.inf)
    return value.numel() == 0 or float(value.min()) >= least
