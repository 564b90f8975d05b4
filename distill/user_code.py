"""Call code of the user, and name and identify it in errors, configs and summaries."""

import contextlib
import functools
import hashlib
import inspect
import marshal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from distill.errors import DistillError

T = TypeVar("T")
R = TypeVar("R")


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Convert an exception in the block to a DistillError, whose one line says that ``what`` raised the exception.

    The exception stays the cause of the DistillError, so Python prints its traceback too.
    """
    try:
        yield
    except DistillError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # of torch, for which run directories have their own message
            raise
        reason = " ".join(str(error).split())[:200]
        found = f"raised {type(error).__name__}{': ' if reason else ''}{reason}"
        raise DistillError(f"{what}: this code of yours {found}; correct the code") from error


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
    named = value if hasattr(value, "__qualname__") else type(value)
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
    except (OSError, TypeError):
        code = getattr(named, "__code__", None)
        parts.append(name_of(named).encode() if code is None else marshal.dumps(code))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
