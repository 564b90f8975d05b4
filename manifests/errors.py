"""The errors of this package, and the errors that decoders raise over damaged files."""

import pickle
import struct


class PatchSetError(ValueError):
    """A patch set, or a part of one, breaks the format.

    The message is one line: where, what was observed, what was expected, what to do.
    """


DECODE_ERRORS = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, ImportError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
    SyntaxError,  # Pillow, over a PNG
)
"""Errors that Pillow or an unpickler raises over damaged bytes."""
