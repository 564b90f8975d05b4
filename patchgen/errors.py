"""Define the errors of this package."""


class PatchgenError(Exception):
    """An error that the user can correct. The message is one line: where, observed, expected, what to do.

    ``user_traceback`` is the traceback of an exception that a user's own function raised, or an empty text.
    """

    def __init__(self, message: str, user_traceback: str = "") -> None:
        super().__init__(message)
        self.user_traceback = user_traceback


class TakenError(PatchgenError):
    """The output folder contains another build, or files that no build wrote."""
