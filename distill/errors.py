"""The errors of this package."""


class DistillError(Exception):
    """The error of a command that cannot continue. The message is one line: where, what is wrong, and what to do.

    ``user_traceback`` is the traceback of an exception that the user's own code raised, or an empty text.
    """

    def __init__(self, message: str, user_traceback: str = "") -> None:
        super().__init__(message)
        self.user_traceback = user_traceback


def with_action(message: str, action: str) -> str:
    """Return ``message`` with the action at the end. A message that already contains an action is not changed."""
    return message if "; " in message else f"{message}; {action}"


class DamagedError(DistillError):
    """The error for a file that could be read, but has corrupt content."""
