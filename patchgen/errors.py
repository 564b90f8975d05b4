"""The error of this package, and its kind that says what a folder holds."""

from pathlib import Path


class PatchgenError(Exception):
    """A build cannot go on. The message is one line: where, observed, expected, what to do."""


class TakenError(PatchgenError):
    """A folder holds something that a build cannot go on from.

    ``what`` it holds and ``advice`` are the message's parts; ``shorter`` says that it is the beginning of the build.
    """

    def __init__(self, folder: Path, what: str, advice: str, *, shorter: bool = False) -> None:
        super().__init__(f"{folder}: {what}; {advice}")
        self.what, self.advice, self.shorter = what, advice, shorter
