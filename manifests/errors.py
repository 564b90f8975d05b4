"""Define the errors of this package, and list the errors that decoders raise when they read damaged files."""

import pickle
import struct


class PatchSetError(ValueError):
    """A patch set, file or URL cannot be used. The message names the file, the fault and a remedy in one line."""


def corrupt(where: object, what: str) -> PatchSetError:
    """Return the error for a damaged file. ``where`` is the name of the file, ``what`` is the observed fault."""
    return PatchSetError(f"{where}: {what}; the file is corrupt; download it again or rebuild it")


def unreadable(where: object, what: str, error: Exception, advice: str) -> PatchSetError:
    """Return the error for a file that the system cannot read. ``advice`` is the remedy unless access is denied."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = "change its permissions" if isinstance(error, PermissionError) else advice
    return PatchSetError(f"{where}: {what} cannot be read: {reason}; {remedy}")


DECODE_ERRORS = (  # errors that Pillow or an unpickler raises when it reads damaged bytes
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, ImportError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
    SyntaxError,  # Pillow raises this for a damaged PNG
)
