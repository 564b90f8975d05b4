"""Errors of this package, and errors that decoders raise when they read damaged files."""

import pickle
import struct


class PatchSetError(ValueError):
    """A patch set breaks the format. The message is one line: where, observed, expected, what to do."""


DECODE_ERRORS = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, ImportError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
    SyntaxError,  # Pillow raises this for a damaged PNG
)
"""Errors that Pillow or an unpickler raises when it reads damaged bytes."""
CORRUPT = "the file is corrupt; download the set again or rebuild it"  # end of a message about a file of a set
