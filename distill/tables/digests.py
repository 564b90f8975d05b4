"""Digests by which a table recognizes its inputs."""

import hashlib
import os
from pathlib import Path

from distill.errors import DistillError
from distill.tables.records import TABLE_NAME
from manifests.format.digest import file_digest
from manifests.support.system_files import is_system_file

MAX_HASHED_BYTES = 1 << 30
"""Maximum size of a folder whose files are hashed at every call; larger ones are compared by names and sizes."""


def input_digest(name: str, path: Path) -> str:
    """Return the SHA-256 of the input ``name`` as hex; for a folder, also what it is computed over.

    A folder's digest is of the lines that ``sha256sum`` prints for all files below it, in the order of the bytes of
    their paths; above ``MAX_HASHED_BYTES`` with their sizes instead of their SHA-256. Links to folders are followed;
    the folders of tables and system files are left out.
    """
    try:
        if not path.is_dir():
            return file_digest(path)
        files = {os.fsencode(file.relative_to(path)): file for file in _files_below(path)}
        hashed = sum(file.stat().st_size for file in files.values()) <= MAX_HASHED_BYTES
        state = hashlib.sha256()
        for each, file in sorted(files.items()):
            content = file_digest(file) if hashed else str(file.stat().st_size)
            state.update(b"%s  %s\n" % (content.encode(), each))
    except OSError as error:
        where = error.filename or path
        raise DistillError(f"{name}: {where}: cannot be read: {error.strerror or error}") from error
    return f"{state.hexdigest()} over {'its files' if hashed else 'names and sizes of its files'}"


def _files_below(folder: Path) -> list[Path]:
    """Return the regular files below ``folder`` without system files; a folder linked into itself is entered once."""

    def fail(error: OSError) -> None:
        raise error

    found, seen = [], set()
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(root)  # noqa: PTH116 - of the target of a link
        if (status.st_dev, status.st_ino) in seen or TABLE_NAME in names:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        found += [path for name in names if not is_system_file(name) and (path := Path(root) / name).is_file()]
    return found
