"""The cache of downloaded sets: find its folder, and find out which files of a set are in it and undamaged."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.format.digest import file_digest
from manifests.format.schema import Manifest
from manifests.remote.download import SetFile, part_path
from manifests.support import files
from manifests.support.console import note

VERIFIED_NAME = ".seen.json"
"""File in the folder of a cached set with the names, sizes and times of all files that were hashed."""
_MAX_RECORD_BYTES = 64 << 20

Verified = dict[str, tuple[int, int, str]]
"""From file names to size in bytes, time of change in nanoseconds, and SHA-256 as hex."""


def cache_home() -> Path:
    """Return the cache folder: ``$PATCHSET_CACHE``, or ``patchset`` in the user's cache folder."""
    try:
        chosen = os.environ.get("PATCHSET_CACHE")
        return Path(files.expand_home(chosen)) if chosen else files.user_cache() / "patchset"
    except ValueError as error:
        raise PatchSetError(f"{error}; set PATCHSET_CACHE to the folder for downloaded sets") from error


def lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """Wait until no other process has locked a folder, and lock the folder until ``stack`` ends."""
    waited = False
    while True:
        try:
            return stack.enter_context(files.hold_folder(folder))
        except BlockingIOError:
            if not waited:
                note(f"{folder}: another process uses this folder; waiting for its end")
            waited = True
            time.sleep(0.2)


def set_files(manifest: Manifest) -> Iterator[SetFile]:
    """Yield the shards and tables of a set."""
    for shard in manifest.shards:
        for part in (shard, shard.parquet):
            yield SetFile(name=part.name, num_bytes=part.bytes, sha256=part.sha256)


def is_intact(folder: Path, file: SetFile, verified: Verified, on_bytes: Callable[[int], None]) -> bool:
    """Return whether the folder contains a file with the right digest. A damaged file is removed.

    The file is hashed only if its size or time of change differs from ``verified``, which is updated.
    """
    path = folder / file.name
    if not files.is_plain(path):  # the download fails if this is a folder
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
    note(f"{path}: the file is damaged; downloading it again")
    path.unlink()
    return False


def stamp(folder: Path, file: SetFile) -> tuple[int, int, str]:
    """Return the entry of ``Verified`` for a file that was just hashed."""
    status = (folder / file.name).stat()
    return status.st_size, status.st_mtime_ns, file.sha256


def read_verified(folder: Path) -> Verified:
    """Read the record of hashed files. Return an empty dict if the record is missing or damaged."""
    try:
        value = json.loads(files.read_regular_file(folder / VERIFIED_NAME, _MAX_RECORD_BYTES))
        return {str(name): (int(size), int(mtime), str(sha)) for name, (size, mtime, sha) in value.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def write_verified(folder: Path, verified: Verified) -> None:
    """Write the record of hashed files. Errors are ignored, because files without a record are hashed again."""
    with contextlib.suppress(OSError):
        files.write_atomically(folder / VERIFIED_NAME, json.dumps(verified).encode())


def remove_parts_but(folder: Path, missing: list[SetFile]) -> None:
    """Remove the temporary files in a locked folder. Keep parts of ``missing`` files: their download continues."""
    kept = {part_path(folder, file.name) for file in missing}
    for part in folder.glob(f"{files.PART_PREFIX}*"):
        if part not in kept:
            part.unlink(missing_ok=True)
