"""The errors of this package."""

from typing import Any


class DistillError(Exception):
    """The error of a command that cannot continue. The one-line message names the place, the fault and an action."""


def with_action(message: str, action: str) -> str:
    """Return ``message`` with the action at the end. A message that already contains an action is not changed."""
    return message if "; " in message else f"{message}; {action}"


class DamagedError(DistillError):
    """The error for a file that could be read, but has corrupt content."""


class NonFiniteLossError(DistillError):
    """The error for a loss that is NaN or infinite. ``details`` are JSON values that help to find the cause."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details
