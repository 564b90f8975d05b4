"""The cache of downloaded sets: where it is, and which files of a set are in it and intact."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.format.digest import file_digest
from manifests.format.schema import Manifest
from manifests.remote.download import SetFile, part_path
from manifests.support.console import note
from manifests.support.files import PART_PREFIX, hold_folder, is_plain, read_regular_file, write_atomically
from manifests.support.home import expand_home, user_cache

VERIFIED_NAME = ".seen.json"
"""File of a cached set that records which of its files were hashed, with their size and time of change."""
FREE_BYTES = 64 << 20  # disk space that must stay free
_MAX_RECORD_BYTES = 64 << 20

Verified = dict[str, tuple[int, int, str]]
"""File name → size in bytes, time of change in nanoseconds, and SHA-256 as hex."""


def cache_home() -> Path:
    """Return the cache folder: ``$PATCHSET_CACHE``, or ``patchset`` in the user's cache folder."""
    try:
        chosen = os.environ.get("PATCHSET_CACHE")
        return Path(expand_home(chosen)) if chosen else user_cache() / "patchset"
    except ValueError as error:
        raise PatchSetError(f"{error}; set PATCHSET_CACHE to the folder for downloaded sets") from error


def lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """Block until the lock of a folder is free, and hold it until ``stack`` ends."""
    waited = False
    while True:
        try:
            return stack.enter_context(hold_folder(folder))
        except BlockingIOError:
            if not waited:
                note(f"{folder}: in use by another process; waiting for it")
            waited = True
            time.sleep(0.2)


def set_files(manifest: Manifest) -> Iterator[SetFile]:
    """Yield the shards and tables of a set."""
    for shard in manifest.shards:
        for part in (shard, shard.parquet):
            yield SetFile(name=part.name, num_bytes=part.bytes, sha256=part.sha256)


def is_intact(folder: Path, file: SetFile, verified: Verified, on_bytes: Callable[[int], None]) -> bool:
    """Return whether a file is in the folder with the right digest, and remove it if it is damaged.

    A file is hashed unless ``verified``, which is updated, has it with its present size and time of change.
    """
    path = folder / file.name
    if not is_plain(path):  # what is no link fails the download's rename
        if path.is_symlink():
            path.unlink()
        return False
    if path.stat().st_size == file.num_bytes:
        entry = stamp(folder, file)
        if verified.get(file.name) == entry or file_digest(path) == file.sha256:
            verified[file.name] = entry
            on_bytes(file.num_bytes)
            return True
    verified.pop(file.name, None)
    note(f"{path}: damaged; fetching it again")
    path.unlink()
    return False


def stamp(folder: Path, file: SetFile) -> tuple[int, int, str]:
    """Return the entry of ``Verified`` for a file that has just been hashed."""
    status = (folder / file.name).stat()
    return status.st_size, status.st_mtime_ns, file.sha256


def read_verified(folder: Path) -> Verified:
    """Read the record of hashed files; empty if it is missing or damaged."""
    try:
        value = json.loads(read_regular_file(folder / VERIFIED_NAME, _MAX_RECORD_BYTES))
        return {str(name): (int(size), int(mtime), str(sha)) for name, (size, mtime, sha) in value.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def write_verified(folder: Path, verified: Verified) -> None:
    """Write the record of hashed files. Errors are ignored: without a record, files are hashed again."""
    with contextlib.suppress(OSError):
        write_atomically(folder / VERIFIED_NAME, json.dumps(verified).encode())


def remove_parts_but(folder: Path, missing: list[SetFile]) -> None:
    """Remove temporary files, except the parts of ``missing`` files, which a download resumes.

    Call it only with the folder locked.
    """
    kept = {part_path(folder, file.name) for file in missing}
    for part in folder.glob(f"{PART_PREFIX}*"):
        if part not in kept:
            part.unlink(missing_ok=True)


def require_space(folder: Path, missing: list[SetFile]) -> None:
    """Check that the disk has space for the missing files."""
    parts = (part_path(folder, file.name) for file in missing)
    present = sum(part.stat().st_size for part in parts if is_plain(part))
    needed = sum(file.num_bytes for file in missing) - present + FREE_BYTES
    if (free := shutil.disk_usage(folder).free) < needed:
        what = f"{free / 1e9:.1f} GB free, the set needs {needed / 1e9:.1f} GB"
        raise PatchSetError(f"{folder}: {what}; free some, or set PATCHSET_CACHE to a folder on a larger disk")
