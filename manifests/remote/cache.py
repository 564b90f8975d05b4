"""The cache of sets from elsewhere: where it is, who works in it, and which of a set's files are there and whole."""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.format.digest import file_digest
from manifests.format.schema import Manifest
from manifests.remote.download import part_of
from manifests.support.console import note
from manifests.support.files import PART_PREFIX, hold_folder, is_plain, read_regular_file, write_atomically
from manifests.support.home import expand_home, user_cache

SEEN_NAME = ".seen.json"
"""Which files of a cached set were hashed, and their size and time then."""
MARGIN = 64 << 20
"""Bytes of disk that stay free."""
_MAX_SEEN_BYTES = 64 << 20

Seen = dict[str, tuple[int, int, str]]
"""Names with size in bytes, time of change in nanoseconds, and SHA-256 as hex."""


@dataclass(frozen=True, kw_only=True)
class SetFile:
    """A shard or a table, as the manifest has it."""

    name: str
    bytes: int
    sha256: str


def cache_home() -> Path:
    """Where sets from elsewhere are kept: ``$PATCHSET_CACHE``, or ``patchset`` in the user's cache folder.

    Raises:
        PatchSetError: nothing says where.
    """
    if chosen := os.environ.get("PATCHSET_CACHE"):
        try:
            return Path(expand_home(chosen))
        except ValueError as error:
            raise PatchSetError(f"PATCHSET_CACHE: {error}") from error
    try:
        return user_cache() / "patchset"
    except ValueError as error:
        raise PatchSetError(f"{error}, so there is no place to keep sets in; set PATCHSET_CACHE") from error


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, as soon as nobody else does."""
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(hold_folder(folder))
                break
            except BlockingIOError:
                if not told:
                    note(f"{folder}: another process is at work here; waiting for it")
                told = True
                time.sleep(0.2)
        yield


def set_files(manifest: Manifest) -> Iterator[SetFile]:
    """The shards and tables of a set."""
    for shard in manifest.shards:
        for part in (shard, shard.parquet):
            yield SetFile(name=part.name, bytes=part.bytes, sha256=part.sha256)


def is_there(folder: Path, file: SetFile, seen: Seen, on_bytes: Callable[[int], None]) -> bool:
    """Whether a file is there and whole, hashed now or, as its size and time show, before; damaged ones go.

    Raises:
        OSError: it cannot be read, or something else has its name.
    """
    path = folder / file.name
    if not is_plain(path):
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            raise OSError(errno.EEXIST, "is no regular file, though a set's file belongs there", str(path))
        return False
    status = path.stat()
    if status.st_size == file.bytes:
        if seen.get(file.name) != (status.st_size, status.st_mtime_ns, file.sha256):
            seen.pop(file.name, None)
            if file_digest(path) == file.sha256:
                seen[file.name] = (status.st_size, status.st_mtime_ns, file.sha256)
        if file.name in seen:
            on_bytes(file.bytes)
            return True
    note(f"{path}: damaged; fetching it again")
    path.unlink()
    return False


def seen_now(folder: Path, file: SetFile) -> tuple[int, int, str]:
    """What to note of a file that has just been hashed."""
    status = (folder / file.name).stat()
    return status.st_size, status.st_mtime_ns, file.sha256


def read_seen(folder: Path) -> Seen:
    """What was noted; whatever is wrong with the note, files are hashed again."""
    try:
        value = json.loads(read_regular_file(folder / SEEN_NAME, _MAX_SEEN_BYTES))
        return {str(name): (int(size), int(time_), str(sha)) for name, (size, time_, sha) in value.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def note_seen(folder: Path, seen: Seen) -> None:
    """Write the note; without it files are hashed again, so that it may fail."""
    with contextlib.suppress(OSError):
        write_atomically(folder / SEEN_NAME, json.dumps(seen).encode())


def remove_others(folder: Path, missing: list[SetFile]) -> None:
    """Remove what killed writers left, but not what ``missing`` files go on from; call only while holding the folder.

    Raises:
        OSError: it cannot be removed.
    """
    kept = {part_of(folder, file.name) for file in missing}
    for part in folder.glob(f"{PART_PREFIX}*"):
        if part not in kept:
            part.unlink(missing_ok=True)


def require_room(folder: Path, missing: list[SetFile]) -> None:
    """Make sure that the disk takes what is missing.

    Raises:
        PatchSetError: it does not.
        OSError: it cannot be asked.
    """
    parts = (part_of(folder, file.name) for file in missing)
    needed = sum(file.bytes for file in missing) - sum(part.stat().st_size for part in parts if is_plain(part))
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN:
        raise PatchSetError(
            f"{folder}: {free / 1e9:.1f} GB free, the set needs {(needed + MARGIN) / 1e9:.1f} GB; free some, or set "
            "PATCHSET_CACHE to a folder with room"
        )
