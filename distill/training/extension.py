"""Extend runs: a checkpoint of a shorter run can continue if the longer run would have begun with the same steps."""

import json
import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distill.config.overrides import LENGTHS
from distill.config.schema import Config, SupervisedConfig
from distill.errors import DamagedError, DistillError
from distill.optim.schedules import same_rates

logger = logging.getLogger(__name__)
_KEYS = frozenset(key.partition(".")[2] for key in LENGTHS)


def differ_in_length(before: Any, now: str) -> bool:
    """Return whether two JSON texts of the group ``train`` differ only in the length of the run."""
    try:
        first, second = json.loads(before), json.loads(now)
    except (ValueError, TypeError, RecursionError):
        return False
    if not isinstance(first, dict) or first.keys() != second.keys():
        return False
    return all(first[key] == second[key] for key in first.keys() - _KEYS)


def require_same_start(config: Config | SupervisedConfig, state: dict[str, Any], n: int, path: Path) -> None:
    """Check that the run of ``config`` has the length of the run in the checkpoint ``state``, or can extend it.

    ``n`` is the number of samples in an epoch. ``path`` is the checkpoint's, for errors.

    Raises:
        DistillError: the run has another length, and its steps so far would have been other steps.
    """
    held = json.loads(state["identity"]["train"])
    length = {key: held.get(key) for key in _KEYS}
    if length == {key: getattr(config.train, key) for key in _KEYS}:
        return
    batch_size = config.data.batch_size
    steps = config.train.steps(n, batch_size)
    try:
        before = type(config.train).model_validate(config.train.model_dump() | length).steps(n, batch_size)
    except (ValidationError, DistillError) as error:
        raise DamagedError(f"{path}: the length of its run is invalid; choose another --out") from error
    if before == steps:  # other numbers of samples can have the same number of whole batches
        return
    step = min(state["step"], before) if type(state["step"]) is int else before
    found = f"{path}: the run has {before * batch_size} samples, and cannot have {steps * batch_size}"
    if before > steps:
        action = "resume the run with the train.samples or train.epochs that it started with, or with more"
        raise DistillError(f"{found}: only a larger number extends a run; {action}, or choose another --out")
    passes = config.data.passes if isinstance(config, Config) else 1
    if passes > 1 and step > -(-before // passes):
        why = f"data.passes is {passes}, so its batches have repeated after a part of {before * batch_size} samples"
        raise DistillError(f"{found}: {why}; choose another --out for a new run")
    if not same_rates(config.optim, (before, steps), batch_size, step):
        schedule = config.optim.schedule + (" with this warm-up" if config.optim.schedule == "constant" else "")
        why = f"the schedule {schedule} (optim.schedule) depends on the length of the run"
        action = "choose another --out for a new run; runs with the schedule constant can be extended"
        raise DistillError(f"{found}: {why}; {action}")
    logger.info(f"the run is extended from {before * batch_size} to {steps * batch_size} samples")
