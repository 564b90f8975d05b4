"""The errors of this package."""

from pathlib import Path


class PatchgenError(Exception):
    """A build cannot continue. The message is one line: where, observed, expected, what to do."""


class TakenError(PatchgenError):
    """A folder has contents that a build cannot continue from.

    ``what`` it contains and ``advice`` are parts of the message; ``shorter`` says that it is a shorter part of the
    same build.
    """

    def __init__(self, folder: Path, what: str, advice: str, *, shorter: bool = False) -> None:
        super().__init__(f"{folder}: {what}; {advice}")
        self.what, self.advice, self.shorter = what, advice, shorter
