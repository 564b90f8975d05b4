"""The one error of this package."""


class PatchSetError(ValueError):
    """A patch set, or a part of one, is not what its format says.

    The message is one line: where, what was observed, what was expected, what to do.
    """
