"""Define the errors of this package."""


class PatchgenError(Exception):
    """An error that the user can correct. The message is one line: where, observed, expected, what to do."""


class TakenError(PatchgenError):
    """The output folder contains another build, or files that no build wrote."""
