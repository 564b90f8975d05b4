"""Tell objects of the user about the progress of a run. They get copies of values, so they cannot change the run."""

import contextlib
import copy
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.errors import DistillError
from distill.user_code import name_of, user_code


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return functools.partial(getattr, owner, name), functools.partial(setattr, owner, name)


_MODES: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _attribute(torch.backends.mkldnn, "enabled"),
    *(_attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
)
"""Modes of torch that a run depends on: functions that get and set each."""


class Callback:
    """The base class of callbacks. Override the methods that you need; only the main rank calls them.

    ``samples`` is the number of training samples so far. An exception in a callback stops the run with an error;
    ``resume=True`` continues the run from its last checkpoint.
    """

    def on_start(self, out: Path, config: dict[str, Any], samples: int) -> None:
        """Called before the first step: with the run directory, the complete config and 0, or more after a resume."""

    def on_log(self, samples: int, figures: dict[str, float]) -> None:
        """Called every ``train.log_steps`` steps with ``loss``, ``lr`` and ``images_per_second``."""

    def on_evaluation(self, samples: int, figures: dict[str, float]) -> None:
        """Called after each evaluation during the training (``eval.every``) with figures such as ``student_top1``."""

    def on_checkpoint(self, samples: int, path: Path) -> None:
        """Called after a checkpoint was written to ``path``."""

    def on_end(self, summary: dict[str, Any]) -> None:
        """Called once at the end of the run with the content of ``summary.json``."""


def require_callbacks(callbacks: Any) -> None:
    """Check that ``callbacks`` is a list of objects."""
    if not isinstance(callbacks, list | tuple):
        found = f"is {name_of(callbacks)}, expected a list of objects of a class derived from distill.Callback"
        raise DistillError(f"callbacks: {found}; give a list, such as [MyCallback()]")
    if classes := [name_of(each) for each in callbacks if isinstance(each, type)]:
        raise DistillError(f"callbacks: {classes[0]} is a class, expected an object; give an instance of the class")


def call(callbacks: Sequence[Callback], method: str, *values: Any) -> None:
    """Call a method of all callbacks, with copies of ``values``. Restore the global state that a run depends on."""
    for callback in callbacks:
        with user_code(f"callback {name_of(callback)}.{method}"), _restored():
            getattr(callback, method)(*copy.deepcopy(values))


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restore random states and the modes of torch at the end of the block.

    Each step of a run seeds torch's generators of all devices, so those of GPUs need not be restored.
    """
    draws, numpy_draws = random.getstate(), np.random.get_state()
    modes = [_mode(get) for get, _ in _MODES]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with torch.inference_mode(False), torch.random.fork_rng([]):
            yield
    finally:
        random.setstate(draws)
        np.random.set_state(numpy_draws)
        for (get, set_to), value in zip(_MODES, modes, strict=True):
            if value is not None and _mode(get) != value:
                set_to(value)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _mode(get: Callable[[], Any]) -> Any:
    """Return the value of a mode; None if it has several values, such as precisions of several backends."""
    try:
        return get()
    except RuntimeError:
        return None
