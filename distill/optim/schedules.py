"""Learning-rate schedules, and the checks of a schedule that need the length of the run."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from distill.errors import DistillError
from distill.optim.config import GAMMA, AdamConfig, OptimConfig, OwnConfig, SgdConfig, is_own
from distill.optim.own import Schedule, code_digest, own_schedule, require_own_optimizer
from manifests.support.counts import counted

ONECYCLE_MOMENTUM = (0.85, 0.95)
"""Smallest and largest momentum (or first beta of Adam) that torch's one-cycle schedule sets."""


def require_length(config: OptimConfig, steps: int, batch_size: int, world_size: int) -> None:
    """Check that ``config`` fits a run of ``steps`` steps of ``batch_size`` samples on ``world_size`` ranks.

    Raises:
        DistillError: the warm-up is too long, or ``accumulate`` makes parts of fewer than two samples.
    """
    warm, first = _warm_steps(config, steps, batch_size), [*config.milestones, 1.0][0]
    if config.warmup >= 1 and warm > first * steps:
        longest = f"{round(first * steps) * batch_size} samples" + (", the first milestone" if first < 1 else "")
        found = f"a warm-up of {config.warmup:.0f} samples in a run of {counted(steps * batch_size, 'sample')}"
        action = "lower optim.warmup, or set more train.samples"
        raise DistillError(f"optim.warmup: {found}, expected at most {longest}; {action}")
    parts = config.accumulate or 1
    if parts > 1 and batch_size < 2 * parts * world_size:
        where = f"{parts} parts" + (f" on each of {world_size} ranks" if world_size > 1 else "")
        found = f"a batch of {counted(batch_size, 'sample')} is too small for {where}"
        action = "lower optim.accumulate, or raise data.batch_size"
        raise DistillError(f"optim.accumulate: {found}, expected at least 2 samples in each part; {action}")


def make_scheduler(config: OptimConfig, optimizer: Optimizer, steps: int, batch_size: int = 1) -> LRScheduler:
    """Return the learning-rate schedule of a run of ``steps`` steps. Call the schedule's ``step`` after each step.

    ``constant`` keeps lr. ``cosine`` and ``linear`` fall from lr to 0. ``milestones`` multiplies lr by ``gamma`` at
    each milestone. ``onecycle`` is torch's: from lr / 25 up to lr at 30 % of the steps, then down to lr / 250,000.
    Meanwhile the momentum (or Adam's first beta) of ``adam``, ``adamw`` and ``sgd`` falls and rises. The other
    schedules, also those of the user, may begin with a warm-up, see ``_factor``. Each group of parameters keeps its
    own highest lr.
    """
    match config.schedule:
        case "onecycle":
            low, high = ONECYCLE_MOMENTUM
            highest, total = [group["lr"] for group in optimizer.param_groups], max(steps, 2) + 1
            moves = isinstance(config, AdamConfig | SgdConfig)
            momentum: dict[str, Any] = {"base_momentum": low, "max_momentum": high, "cycle_momentum": moves}
            return OneCycleLR(optimizer, highest, total_steps=total, **momentum)
        case "cosine" if not config.warmup:
            return CosineAnnealingLR(optimizer, T_max=steps)
        case _:
            warm = _warm_steps(config, steps, batch_size)
            own = _own_schedule(config)
            return LambdaLR(optimizer, lambda step: _factor(config, step, steps, warm, own))


def _own_schedule(config: OptimConfig) -> Schedule | None:
    return own_schedule(config.schedule, config.schedule_arguments or {}) if is_own(config.schedule) else None


def check_own(config: OptimConfig, steps: int) -> dict[str, str]:
    """Check optimizer and schedule of the user for a run of ``steps`` steps. Return their digests by config key."""
    digests = {}
    if isinstance(config, OwnConfig):
        digests["optim.name"] = code_digest(config.function, "optim.name")
        require_own_optimizer(config.function, config.make)
    if (own := _own_schedule(config)) is not None:
        digests["optim.schedule"] = code_digest(config.schedule, "optim.schedule")
        for step in (0, steps // 2, steps - 1):
            own(step, steps)
    return digests


def same_rates(config: OptimConfig, lengths: tuple[int, int], batch_size: int, step: int) -> bool:
    """Return whether runs of two ``lengths``, in steps, have the same learning rates up to ``step``, from 0."""
    if config.schedule == "onecycle" or (config.schedule == "cosine" and not config.warmup):
        return False
    if config.schedule == "constant" and (not config.warmup or config.warmup >= 1):
        return True
    own = _own_schedule(config)
    (before, first), (after, second) = ((steps, _warm_steps(config, steps, batch_size)) for steps in lengths)
    return all(
        _factor(config, each, before, first, own) == _factor(config, each, after, second, own)
        for each in range(step, -1, -1)
    )


def _warm_steps(config: OptimConfig, steps: int, batch_size: int) -> int:
    """Return the number of steps of the warm-up, which ``config`` has as a fraction of the run or as samples."""
    if config.warmup >= 1:
        return math.ceil(config.warmup / batch_size)
    return math.ceil(round(config.warmup * steps, 6))  # 0.07 · 100 is a little more than 7


def _factor(config: OptimConfig, step: int, steps: int, warm: int, own: Schedule | None) -> float:
    """Return the factor that multiplies lr in ``step``, counted from 0, of a run of ``steps`` steps.

    The learning rates of a warm-up of w = ``warm`` steps are lr / (w + 1), 2 lr / (w + 1) and so on, until lr after
    the warm-up. Cosine and line cover the steps after the warm-up. Milestones are fractions of the whole run.
    """
    if step < warm:
        return (step + 1) / (warm + 1)
    if own is not None:
        return own(step, steps)
    passed = (step - warm) / max(steps - warm, 1)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2
    if config.schedule == "linear":
        return 1 - passed
    drops = sum(step / steps >= milestone for milestone in config.milestones)
    return (GAMMA if config.gamma is None else config.gamma) ** drops
