"""The one error of this package."""


class DistillError(Exception):
    """A run cannot go on. The message is one line: where, observed, expected, what to do."""
