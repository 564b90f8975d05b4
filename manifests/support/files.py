"""Write files atomically, read files of bounded size, lock folders, and expand ``~`` in paths."""

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

PART_PREFIX = ".patchset-part-"
"""Prefix of every temporary file. Readers ignore these files. A writer that has locked the folder removes them."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``. Rename it to ``path`` when the block ends without error.

    The file is synced before it is renamed, so a crash leaves the old file or the whole new file.
    """
    part = path.with_name(f"{part_prefix()}{path.name}")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def part_prefix() -> str:
    """Return a prefix for names of temporary files. Every process on every machine has another prefix."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return f"{PART_PREFIX}{machine}-{os.getpid()}-"


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``. If this fails, ``path`` stays unchanged."""
    with atomic_file(path) as file:
        file.write(data)


def sync_directory(path: Path) -> None:
    """Sync a directory to the disk, so that renames survive a crash. Do nothing if the file system refuses."""
    with contextlib.suppress(OSError):  # some network file systems refuse to open or sync a directory
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of killed writers. The caller must have locked the folder."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        part.unlink(missing_ok=True)


def name_as_text(name: str) -> str:
    """Return the name of a file as text. Bytes that are not UTF-8 become escapes such as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_plain(path: Path) -> bool:
    """Return whether a path is a regular file and not a link."""
    return path.is_file() and not path.is_symlink()


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a file. Raise OSError for a file larger than ``max_bytes``, a folder, pipe or device."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, expected a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, expected at most {max_bytes}", str(path))
    return path.read_bytes()


@contextlib.contextmanager
def hold_folder(folder: Path, *, shared: bool = False, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Lock a folder while the block runs. Several processes may have a ``shared`` lock at the same time.

    If another process has locked the folder, call ``on_wait`` and wait. Without ``on_wait``, raise BlockingIOError.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    handle = os.open(folder, os.O_RDONLY)
    if not _held:
        os.register_at_fork(after_in_child=_release_in_child)
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                raise
            on_wait()
            fcntl.flock(handle, kind)
        except OSError as error:  # some network file systems cannot lock a folder
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF):
                raise
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


_held: set[int] = set()


def _release_in_child() -> None:
    """Close the locks that a forked process inherits. Otherwise folders stay locked if the parent is killed."""
    while _held:
        os.close(_held.pop())


def describe_os_error(error: OSError, folder: Path) -> str:
    """Return path, reason and remedy of a failed write into ``folder``. Callers append another remedy to the line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{folder}: no space left on the disk; free some space"
    path = error.filename2 or error.filename or folder
    if Path(os.fsdecode(path)).name.startswith(PART_PREFIX):
        path = folder  # users do not know the temporary name
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{path}: is not a folder, or is inside a file; choose another folder"
    remedy = "change its permissions" if isinstance(error, PermissionError) else "solve this problem"
    return f"{path}: {error.strerror or error}; {remedy}"


def expand_home(path: str) -> str:
    """Replace ``~`` or ``~USER`` in a path. Raise ValueError for a text that cannot be a path."""
    if not path:
        raise ValueError("the path is empty; give a path")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise ValueError(f"{path!a} is not valid Unicode text, expected a path; correct it") from error
    if "\0" in path:
        raise ValueError(f"{path!a} has a null character, expected a path; correct it")
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser changes other paths too
    if path.startswith("~") and expanded.startswith("~"):
        name = path.partition("/")[0]
        raise ValueError(f"{path}: the home folder {name} is unknown; write ./{path} for a file with this name")
    return expanded


def user_cache(variable: str = "XDG_CACHE_HOME") -> Path:
    """Return the folder in an environment variable, or ~/.cache. Raise ValueError for an unknown home folder."""
    chosen = os.environ.get(variable) or "~/.cache"
    try:
        return Path(expand_home(chosen))
    except ValueError as error:  # with another action
        raise ValueError(f"the home folder in {chosen!r} ({variable}) is unknown") from error
