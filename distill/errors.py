"""Errors that distill raises, and the type of the function that prints notes."""

from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]
"""Prints one line for the user that is not an error."""


class DistillError(Exception):
    """A run cannot go on. The message is one line: where, observed, expected, what to do."""


class DamagedError(DistillError):
    """A file does not hold what was once written to it."""


class NonFiniteLossError(DistillError):
    """The loss is NaN or infinite; ``details`` are plain values that help to find out why."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


def ignore(line: str) -> None:
    """Print nothing: the ``Say`` of a caller that shows no notes."""
