"""Tell objects of the user about the progress of a run. They get copies of values, so they cannot change the run."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.user_code import name_of, user_code


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


def call(callbacks: Sequence[Callback], method: str, *values: Any) -> None:
    """Call a method of all callbacks, with copies of ``values``."""
    for callback in callbacks:
        with user_code(f"callback {name_of(callback)}.{method}"):
            getattr(callback, method)(*copy.deepcopy(values))
