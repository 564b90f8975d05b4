"""Check an untrusted checkpoint and load it into a trainer."""

import copy
import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import DamagedError
from distill.optim.config import OwnConfig
from distill.optim.optimizers import state_template
from distill.training.checkpoint import CHECKPOINT_NAME
from distill.training.run_dir import METRICS_NAME
from distill.training.trainer import Trainer
from distill.user_code import user_code
from distill.weights.load import put_state
from distill.weights.torch_files import are_finite
from manifests.support.files import read_regular_file, write_atomically

ROW_BYTES = 40_000  # most of ``metrics.jsonl`` for a step: a line of the loop, and one of a hundred evaluation sets
_MOVING = frozenset({"lr", "momentum", "betas", "scale", "_growth_tracker", "step", "seconds"}) | {
    *("last_epoch", "_step_count", "_is_initial", "_get_lr_called_within_step", "_last_lr")
}
"""Names of values that training steps change. All other values must be equal to those of the config."""
_SQUARES = (
    "step",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "square_avg",
    "acc_delta",
    "sum",
    "row_var",
    "col_var",
    "variance",
)
"""Names of values of an optimizer's state that are never negative: numbers of steps, and sums of squares."""


def restore(trainer: Trainer, out: Path, checkpoint: dict[str, Any] | None) -> None:
    """Load ``checkpoint`` into ``trainer`` and cut later steps from the log. Without a checkpoint, delete the log."""
    metrics = out / METRICS_NAME
    if checkpoint is None:
        if trainer.ranks.is_main:
            metrics.unlink(missing_ok=True)
        return
    _require_fit(trainer, checkpoint, str(out / CHECKPOINT_NAME))
    state, device = trainer.state, trainer.accelerator.context.device
    put_state(state.student, checkpoint["student"])
    if state.projections is not None:
        put_state(state.projections, checkpoint["projections"])
    optim, kept = trainer.config.optim, copy.deepcopy(checkpoint["optimizer"])  # the file's tensors are mapped
    with user_code(f"optimizer {optim.function}") if isinstance(optim, OwnConfig) else nullcontext():
        state.optimizer.load_state_dict(kept)
    state.scaler.load_state_dict(checkpoint["scaler"])
    state.scheduler.load_state_dict(checkpoint["scheduler"])
    if state.average is not None:
        put_state(state.average, checkpoint["average"])
    state.step, state.seconds = checkpoint["step"], checkpoint["seconds"]
    state.losses = list(checkpoint["losses"].to(device, copy=True))
    if trainer.ranks.is_main and os.path.lexists(metrics):  # later steps are trained and logged again
        text = read_regular_file(metrics, (1 << 20) + ROW_BYTES * trainer.steps).decode(errors="replace")
        rows = [line for line in text.splitlines() if _row_step(line) <= state.step]
        write_atomically(metrics, "".join(row + "\n" for row in rows).encode())


def _row_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return float("inf")  # a crash cut this line short


def _require_fit(trainer: Trainer, held: dict[str, Any], where: str) -> None:
    """Check that training with ``trainer`` could have produced the state ``held``, read from the file ``where``."""
    own = trainer.state.state_dict()
    own["optimizer"]["state"] = _kept_state(trainer, held["optimizer"])
    if isinstance(losses := held["losses"], Tensor):  # a loss of the user may be of any floating-point type
        own["losses"] = torch.zeros(losses.numel(), dtype=losses.dtype if losses.is_floating_point() else None)
    free = isinstance(trainer.config.optim, OwnConfig)  # an optimizer of the user may change any of its values
    if free:
        _require_own(held.get("optimizer"), own.pop("optimizer"), f"{where}: optimizer")
    for name, value in own.items():
        _require_like(held.get(name), value, f"{where}: {name}", name in _MOVING)
    step, optimizer = held["step"], held["optimizer"]
    moved = (
        set() if free else set(_factors(optimizer)) - set(_factors(own["optimizer"]))
    )  # config values are possible
    states = [] if free else optimizer["state"].values()
    scaler = {"scale": 1.0, "_growth_tracker": 0, "growth_interval": 1} | held["scaler"]
    squares = [kept[key] for kept in states for key in _SQUARES if key in kept]
    if not (
        type(step) is int
        and 0 <= step <= trainer.steps
        and held["seconds"] >= 1e-9 * step
        and held["scheduler"]["last_epoch"] == step
        and len(held["losses"]) <= step
        and all(0 <= factor < 1 for factor in moved)
        and all(group["lr"] >= 0 for group in optimizer["param_groups"])
        and 0 < scaler["scale"] < 3e38
        and 0 <= scaler["_growth_tracker"] <= scaler["growth_interval"]
        and all(value.numel() == 0 or value.min() >= 0 for value in squares)
    ):
        raise DamagedError(f"{where}: some values are impossible for this run; choose another --out")


def _require_own(held: Any, own: dict[str, Any], where: str) -> None:
    """Check the state ``held`` of an optimizer of the user. Its values and keys may change in each step."""
    groups = held.get("param_groups") if isinstance(held, dict) and isinstance(held.get("state"), dict) else None
    numbers = [each.get("params") if isinstance(each, dict) else None for each in groups or ()]
    if groups is None or numbers != [group["params"] for group in own["param_groups"]]:
        raise DamagedError(f"{where} belongs to other parameters; choose another --out")
    _require_like([each.get("lr") for each in groups], [0.0] * len(groups), f"{where}: lr", True)
    for number, expected in own["state"].items():
        kept = held["state"][number]
        for key, value in expected.items() if isinstance(kept, dict) else ():
            other = kept.get(key)
            if isinstance(value, Tensor) and isinstance(other, Tensor) and other.shape != value.shape:
                found = f"is {_kind(other)}, expected {_kind(value)}"
                raise DamagedError(f"{where}.state.{number}.{key} {found}; choose another --out")


def _factors(optimizer: dict[str, Any]) -> list[float]:
    """Return the decays of averages in all groups of the state of an optimizer."""
    return [x for group in optimizer["param_groups"] for x in (group.get("momentum", 0), *group.get("betas", ()))]


def _kept_state(trainer: Trainer, held: Any) -> dict[int, dict[str, Tensor]]:
    """For each parameter with state in ``held``, return tensors of the expected shapes by number and key."""
    numbers = held["state"] if isinstance(held, dict) and isinstance(held.get("state"), dict) else {}
    template = state_template(trainer.config.optim, trainer.trained)
    return {number: kept for number, kept in template.items() if number in numbers}


def _require_like(held: Any, own: Any, where: str, moving: bool) -> None:
    """Check that ``held`` equals ``own``. Values of tensors may differ and, if ``moving``, also other numbers."""
    if isinstance(own, Tensor):
        fits = isinstance(held, Tensor) and (held.shape, held.dtype) == (own.shape, own.dtype) and are_finite(held)
    elif isinstance(own, dict) and isinstance(held, dict):
        if different := sorted(map(str, held.keys() ^ own.keys())):
            fault = "is missing" if different[0] in map(str, own) else "is unexpected"
            raise DamagedError(f"{where}: the key {different[0]} {fault}; choose another --out")
        fits = True
        for key in own:
            _require_like(held[key], own[key], f"{where}.{key}", moving or key in _MOVING)
    elif isinstance(own, list | tuple) and isinstance(held, list | tuple):
        fits = len(held) == len(own)
        for number, value in enumerate(own if fits else ()):
            _require_like(held[number], value, f"{where}[{number}]", moving)
    elif moving and isinstance(own, int | float):
        fits = isinstance(held, int | float) and abs(held) < 1 << 63
    else:
        fits = not isinstance(held, Tensor) and bool(held == own)
    if not fits:
        raise DamagedError(f"{where} is {_kind(held)}, expected {_kind(own)}; choose another --out")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}" + ("" if are_finite(value) else " with non-finite values")
    return f"a list of {len(value)} values" if isinstance(value, list | tuple) else str(value)[:100]
