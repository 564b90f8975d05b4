"""By what a table knows its inputs again."""

import hashlib
import os
from pathlib import Path

from distill.errors import DistillError
from distill.tables.records import MARKER
from manifests.format.digest import file_digest
from manifests.support.system_files import is_system_file

MOST_HASHED = 1 << 30
"""Bytes of a folder whose files are read at every call; of larger ones names and sizes are compared alone."""


def pin(name: str, path: Path) -> str:
    """What the input ``name`` holds: a file's SHA-256 as hex, or a folder's, and over what it is.

    A folder's is over the lines that ``sha256sum`` prints of all files below it, in the order of their paths' bytes,
    or, where they are more than ``MOST_HASHED`` bytes together, over their sizes in place of their SHA-256. Links to
    folders are followed; a table's own folder and system files are left out.

    Raises:
        DistillError: it cannot be read.
    """
    try:
        return _pin_folder(path) if path.is_dir() else file_digest(path)
    except OSError as error:
        where = error.filename or path
        raise DistillError(f"{name}: {where}: cannot be read: {error.strerror or error}") from error


def _pin_folder(folder: Path) -> str:
    files = {os.fsencode(path.relative_to(folder).as_posix()): path for path in _files_below(folder)}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    few = sum(sizes.values()) <= MOST_HASHED
    state = hashlib.sha256()
    for name in sorted(files):
        held = file_digest(files[name]) if few else str(sizes[name])
        state.update(b"%s  %s\n" % (held.encode(), name))
    return f"{state.hexdigest()} over {'its files' if few else 'names and sizes of its files'}"


def _files_below(folder: Path) -> list[Path]:
    """Regular files below ``folder``, but for system files; one that is linked into itself is entered once."""

    def fail(error: OSError) -> None:
        raise error

    found, seen = [], set()
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        held = os.stat(root)  # noqa: PTH116 - of what a link leads to
        if (held.st_dev, held.st_ino) in seen or MARKER in names:
            folders.clear()
            continue
        seen.add((held.st_dev, held.st_ino))
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        found += [path for name in names if not is_system_file(name) and (path := Path(root) / name).is_file()]
    return found
