"""The errors of this package."""

from typing import Any


class DistillError(Exception):
    """The error of a command that cannot continue. The one-line message names the place, the fault and an action."""


class DamagedError(DistillError):
    """The error for a file that could be read, but has corrupt content."""


class NonFiniteLossError(DistillError):
    """The error for a loss that is NaN or infinite. ``details`` are JSON values that help to find the cause."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details
