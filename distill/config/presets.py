"""YAML files that come with the package, by name, and a user's own by path."""

import difflib
import os
from pathlib import Path

from distill.errors import DistillError
from manifests.support.files import read_regular_file

CONFIGS, TABLES = "configs", "tables"
"""Kinds of files that come with the package."""
MAX_BYTES = 1 << 20
_PACKAGE = Path(__file__).parents[1]
_FOLDERS = {CONFIGS: _PACKAGE / "configs", TABLES: _PACKAGE / "tables" / "definitions"}


def names(folder: str) -> list[str]:
    """Names of the YAML files in ``folder`` of the package."""
    return sorted(_paths(folder))


def text(folder: str, name: str) -> str:
    """One of them, comments and all; ``folder`` is named after what its files are.

    Raises:
        DistillError: there is none of that name.
    """
    what, held, bare = folder.removesuffix("s"), names(folder), name.removesuffix(".yaml")
    if bare not in held:
        near = difflib.get_close_matches(bare, held, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(held)}"
        raise DistillError(f"{what} {name!r}: no such file and no packaged {what}; {hint}")
    return _paths(folder)[bare].read_text(encoding="utf-8")


def _paths(folder: str) -> dict[str, Path]:
    return {file.stem: file for file in _FOLDERS[folder].rglob("*.yaml")}


def headline(folder: str, name: str) -> str:
    """What one is for: the beginning of its first comment."""
    return text(folder, name).splitlines()[0].removeprefix("#").split(":")[0].strip()


def read(folder: str, name_or_path: str) -> tuple[str, str]:
    """A short name and the YAML text: of a file where there is one, else of the packaged one.

    Raises:
        DistillError: neither exists, or the file cannot be read.
    """
    path = Path(name_or_path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        return path.name.removesuffix(".yaml"), text(folder, name_or_path)
    try:
        return path.stem, read_regular_file(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DistillError(f"{folder.removesuffix('s')} {path}: cannot be read: {reason}") from error
