"""The errors of this package, and the errors that decoders raise over damaged files."""

import pickle
import struct


class PatchSetError(ValueError):
    """A patch set, or a part of one, breaks the format.

    The message is one line: where, what was observed, what was expected, what to do.
    """


class PassingError(PatchSetError):
    """A temporary failure to read a remote file; a retry after ``after`` seconds may succeed.

    ``busy`` says that the server answered that it is overloaded.
    """

    def __init__(self, message: str, after: float = 0.0, *, busy: bool = False) -> None:
        super().__init__(message)
        self.after, self.busy = after, busy


TORN = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, ImportError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
    SyntaxError,  # Pillow, over a PNG
)
"""Errors that Pillow or an unpickler raises over damaged bytes."""
