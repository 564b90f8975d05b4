"""The error of this package, and the many that a torn file causes."""

import pickle
import struct


class PatchSetError(ValueError):
    """A patch set, or a part of one, is not what its format says.

    The message is one line: where, what was observed, what was expected, what to do.
    """


TORN = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, ImportError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
    SyntaxError,  # of Pillow, over a PNG
)
"""What an unpickler, or code handed its result, raises: as many ways as bytes can mislead."""
