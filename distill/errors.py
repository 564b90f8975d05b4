"""The errors of this package."""

from typing import Any


class DistillError(Exception):
    """A command cannot continue. The message is one line: where, observed, expected, what the user can do."""


class DamagedError(DistillError):
    """A file could be read, but its content is corrupt."""


class NonFiniteLossError(DistillError):
    """The loss is NaN or infinite. ``details`` are plain JSON values that help to find the cause."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details
