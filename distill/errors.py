"""The one error of this package, and who is told of what is none."""

from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]
"""Hears a line that is worth telling and no error."""


class DistillError(Exception):
    """A run cannot go on. The message is one line: where, observed, expected, what to do."""


class DamagedError(DistillError):
    """A file was read, and is not what was once written."""


class NonFiniteLossError(DistillError):
    """The loss is no finite number any more; ``details`` are plain values to find out why."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


def ignore(line: str) -> None:
    """Hears a line that nobody needs."""
