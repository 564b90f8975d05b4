"""The errors of this package."""


class PatchgenError(Exception):
    """The user must change something. The message is one line: where, observed, expected, what to do."""


class TakenError(PatchgenError):
    """A folder has contents that a build cannot continue from."""
