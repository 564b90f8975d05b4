"""Call code of the user, and name and identify it in errors, configs and summaries."""

import contextlib
import errno
import functools
import hashlib
import inspect
import marshal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from distill.errors import DistillError
from manifests.errors import PatchSetError
from manifests.support.user_code import (
    UserCodeError,
    failed_in,
    failure,
    import_function,
    require_allowed,
    same_folder,
)

T = TypeVar("T")
R = TypeVar("R")


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Convert an exception in the block to a DistillError, whose one line says that ``what`` raised the exception.

    The DistillError has the traceback of the user's code, which the command line prints below the line. The exception
    stays the cause of the DistillError, so a Python program prints its traceback too.
    """
    try:
        with same_folder():
            yield
    except DistillError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit() would end the program as if it had succeeded
        if type(error).__name__ == "OutOfMemoryError":  # of torch, for which run directories have their own message
            raise
        failed = failure(what, error)
        raise DistillError(str(failed), failed.user_traceback) from error


@contextlib.contextmanager
def attributed() -> Iterator[None]:
    """Convert an exception as ``user_code`` does if code of the user raised it in the block."""
    try:
        yield
    except (Exception, SystemExit) as error:
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)  # not a fault of code
        if is_full or isinstance(error, PatchSetError) or not (where := failed_in(error)):
            raise
        with user_code(where):
            raise


def import_user(name: str, where: str) -> Callable[..., Any]:
    """Import the callable ``package.module:callable``, which the user allowed. ``where`` names the place in errors.

    Raises:
        DistillError: the user did not allow the package, or it does not exist, fails, or has no such callable.
    """
    require_user(name, where)
    try:
        return import_function(name)
    except UserCodeError as error:
        raise DistillError(f"{where}: {error}", error.user_traceback) from error


def require_user(name: str, where: str) -> None:
    """Raise DistillError if the user did not allow the import of ``name``. ``where`` names the place in errors."""
    try:
        require_allowed(name)
    except UserCodeError as error:
        raise DistillError(f"{where}: {error}") from error


def guarded(function: Callable[[T], R], what: str) -> Callable[[T], R]:
    """Return ``function`` of the user ``what``, with its exceptions converted by ``user_code``."""

    def call(value: T) -> R:
        with user_code(what):
            return function(value)

    return call


def name_of(value: Any) -> str:
    """Return ``MODULE:NAME`` of a function or a class, or of the class of another object."""
    while isinstance(value, functools.partial):
        value = value.func
    named = value if hasattr(value, "__qualname__") and hasattr(value, "__module__") else type(value)
    return f"{named.__module__ or '__main__'}:{named.__qualname__}"


def source_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256, in hex, of the source of a function, or of the class of another callable object.

    Without source, as in an interactive Python, it is the SHA-256 of the bytecode. The digest also covers the
    arguments of a ``functools.partial`` and the ``repr`` of a torch module.
    """
    parts: list[bytes] = []
    while isinstance(function, functools.partial):
        parts.append(repr((function.args, sorted(function.keywords.items()))).encode())
        function = function.func
    named: Any = function
    if not hasattr(function, "__qualname__"):
        named = type(function)
        parts.append(repr(function).encode() if hasattr(function, "extra_repr") else b"")
    try:
        parts.append(inspect.getsource(named).encode())
    except Exception:  # noqa: BLE001 - there is no file, or it is not Python, which fails in many ways
        code = getattr(named, "__code__", None)
        parts.append(name_of(named).encode() if code is None else marshal.dumps(code))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
