"""The one error of this package."""


class PatchgenError(Exception):
    """A build cannot go on. The message is one line: where, observed, expected, what to do."""
