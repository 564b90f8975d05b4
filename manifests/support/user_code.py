"""Import functions that a user wrote, if the user allowed their package. Name the source of their code.

A file of a user names a function as ``package.module:function``. Files may come from other people, so a name is
imported only after ``allow_import``, or after the program received the function itself.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
_ROOT = Path(__file__).parents[2]
_PROGRAMS = tuple(f"{_ROOT / package}{os.sep}" for package in ("manifests", "patchgen", "distill"))
_INSTALLED = tuple(sysconfig.get_paths()[key] + os.sep for key in ("stdlib", "platstdlib"))
_allowed: set[str] = set()  # packages and modules, and complete names of functions


class UserCodeError(ValueError):
    """A user's function cannot be used. The message is one line without the place where the function is named.

    ``user_traceback`` is the traceback of an exception that the user's code raised, or an empty text.
    """

    def __init__(self, message: str, user_traceback: str = "") -> None:
        super().__init__(message)
        self.user_traceback = user_traceback


def allow_import(package: str) -> None:
    """Allow this process to import functions of a package or module, and of all modules inside it."""
    _allowed.add(package)


def importable_name(function: Any) -> str:
    """Return the name ``package.module:function`` of a function, and allow this process to import this name.

    Raises:
        UserCodeError: other processes could not import the function by this name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module == "__main__":
        what = f"{name} is defined in the running program or notebook, where other processes cannot import it"
        raise UserCodeError(f"{what}; move the function into a module (a .py file) and import it from there")
    if not module or not name or getattr(sys.modules.get(module), name, None) is not function:
        what = f"{name or repr(function)} is not a function at the top level of its module"
        raise UserCodeError(f"{what}; give a function that is defined with 'def' at the top level of a module")
    _allowed.add(f"{module}:{name}")
    return f"{module}:{name}"


def require_allowed(name: str) -> None:
    """Raise an error if the user did not allow the import of ``name``, a text ``package.module:function``."""
    parts = name.partition(":")[0].split(".")
    if name not in _allowed and not any(".".join(parts[:count]) in _allowed for count in range(1, len(parts) + 1)):
        advice = (
            f"if you trust this code, add --allow-import {parts[0]}, or call allow_import({parts[0]!r}) in Python"
        )
        raise UserCodeError(f"the import of {name} from the package {parts[0]!r} is not allowed; {advice}")


@contextlib.contextmanager
def same_folder() -> Iterator[None]:
    """Return to the current folder after a block of user code, because this program has relative paths."""
    try:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        folder = None
    try:
        yield
    finally:
        if folder is not None:
            os.fchdir(folder)
            os.close(folder)


def import_function(name: str) -> Callable[..., Any]:
    """Import the function ``package.module:function``. The caller has checked that this is allowed.

    Raises:
        UserCodeError: the module does not exist or fails, or it has no such function.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with same_folder():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            advice = "install it, or add its folder to PYTHONPATH"
            raise UserCodeError(f"there is no module {error.name!r}; {advice}") from error
        raise failure(f"the import of {module_name}", error) from error
    except (Exception, SystemExit) as error:
        raise failure(f"the import of {module_name}", error) from error
    if callable(function := getattr(module, attribute, None)):
        return function
    if hasattr(module, attribute):
        what = f"{name} is a {type(function).__name__}, expected a function"
        raise UserCodeError(f"{what}; give the name of a function")
    known = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
    near = get_close_matches(attribute, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known[:10]) or 'no functions'}"
    raise UserCodeError(f"the module {module_name} has no function {attribute!r}; {hint}")


def failure(what: str, error: BaseException) -> UserCodeError:
    """Return the error for an exception that user code raised in ``what``, with the traceback of the user's frames.

    The first frames, which are of these programs and of Python's import, are left out of the traceback. Callers pass
    a SystemExit too, because ``sys.exit()`` would end the program with exit status 0 and without its result.
    """
    frames = error.__traceback__
    while frames and _is_caller(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames)).rstrip()
    try:
        reason = " ".join(str(error).split())[:300]
    except Exception:  # noqa: BLE001 - of the __str__ of the user's exception
        reason = ""
    kind = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return UserCodeError(f"{what} (your code) raised {kind}; correct this code", text)


def failed_in(error: BaseException) -> str:
    """Return the innermost function of the user that an exception passed, ``module:function``, or an empty text."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}" for frame in frames if _is_user(frame)]
    return names[-1] if names else ""


def _is_user(frame: FrameType) -> bool:
    """Return whether a frame is of code that the user allowed, or that belongs to no installed package."""
    file, parts = frame.f_code.co_filename, str(frame.f_globals.get("__name__")).split(".")
    if any(".".join(parts[:count]) in _allowed for count in range(1, len(parts) + 1)):
        return True
    is_installed = file.startswith(_INSTALLED) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
    return not is_installed and not file.startswith((*_PROGRAMS, "<"))


def _is_caller(file: str) -> bool:
    """Return whether a source file is one of these programs, or of Python's import or its context managers."""
    return "importlib" in file or file == contextlib.__file__ or file.startswith(_PROGRAMS)


@functools.cache  # later changes of the file do not change the functions that are already imported
def source_digest(name: str) -> str:
    """Return the SHA-256, as hex, of the file that defines the function ``package.module:function``."""
    function = inspect.unwrap(import_function(name))
    module = sys.modules.get(getattr(function, "__module__", None) or "") or sys.modules[name.partition(":")[0]]
    try:
        return hashlib.sha256(Path(module.__file__ or "").read_bytes()).hexdigest()
    except (OSError, AttributeError) as error:
        what = f"the source file of {name} cannot be read, so its digest cannot be recorded"
        raise UserCodeError(f"{what}; give a function whose module is a file") from error


def package_version(name: str) -> tuple[str, str]:
    """Return the distribution that contains the function ``package.module:function``, and its installed version."""
    top = name.partition(":")[0].partition(".")[0]
    distribution = importlib.metadata.packages_distributions().get(top, [top])[0]
    try:
        return distribution, importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return distribution, "no version"
