"""Write files atomically (under a temporary name, synced, then renamed), read bounded files, and lock folders."""

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PART_PREFIX = ".patchset-part-"
"""Prefix of every temporary file. Readers ignore these; a writer that holds the folder's lock removes them."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; rename it to ``path`` when the block ends without error.

    The bytes reach the disk before the name does, so a crash leaves the old file or the new one. On any
    error the temporary file is removed.
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
    """Return the prefix of this process's temporary files: other machines may write into the same folder."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return f"{PART_PREFIX}{machine}-{os.getpid()}-"


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole, or leave ``path`` as it was."""
    with atomic_file(path) as file:
        file.write(data)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable, where the file system supports it."""
    with contextlib.suppress(OSError):  # some network file systems refuse to open or sync a directory
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_parts(folder: Path) -> None:
    """Remove temporary files that a killed writer left; call it only while holding the folder's lock."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        part.unlink(missing_ok=True)


def name_as_text(name: str) -> str:
    """Return a file's name as text, with escapes such as ``\\xe9`` for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_plain(path: Path) -> bool:
    """Return whether a path is a regular file and not a link."""
    return path.is_file() and not path.is_symlink()


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file, or of the regular file that a link points to.

    Raises:
        OSError: it cannot be read, is larger than ``max_bytes``, or is a pipe or device, which might never end.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes, expected at most {max_bytes}", str(path))
    return path.read_bytes()


@contextlib.contextmanager
def hold_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock an existing folder for the duration of the block. ``shared`` locks exclude only exclusive ones.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    if not _held:
        os.register_at_fork(after_in_child=_release_in_child)
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:  # some network file systems cannot lock a folder
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF):
                raise
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


_held: set[int] = set()


def _release_in_child() -> None:
    """Close inherited locks, which a forked process would keep after its parent is killed."""
    while _held:
        os.close(_held.pop())


def describe_os_error(error: OSError, folder: Path) -> str:
    """Return the start of an error line about a failed write into ``folder``: the path, the reason, what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{folder}: no space left on the disk; free some"
    path = error.filename2 or error.filename or folder
    if Path(os.fsdecode(path)).name.startswith(PART_PREFIX):
        path = folder  # users do not know the temporary name
    return f"{path}: {error.strerror or error}; put that right"
