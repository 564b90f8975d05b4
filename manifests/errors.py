"""The error of this package, its kind that may pass, and the many that a torn file causes."""

import pickle
import struct


class PatchSetError(ValueError):
    """A patch set, or a part of one, is not what its format says.

    The message is one line: where, what was observed, what was expected, what to do.
    """


class PassingError(PatchSetError):
    """A file elsewhere could not be had now; asked again it may be, but not before ``after`` seconds.

    ``busy`` says that a server is there and has too much to do.
    """

    def __init__(self, message: str, after: float = 0.0, *, busy: bool = False) -> None:
        super().__init__(message)
        self.after, self.busy = after, busy


TORN = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, ImportError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
    SyntaxError,  # of Pillow, over a PNG
)
"""What an unpickler, or code handed its result, raises: as many ways as bytes can mislead."""
