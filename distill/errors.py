"""The one error of this package, and the many that a torn file causes."""

import pickle
import struct


class DistillError(Exception):
    """A run cannot go on. The message is one line: where, observed, expected, what to do."""


TORN = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, ImportError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)
"""What an unpickler, or code handed its result, raises: as many ways as bytes can mislead."""
