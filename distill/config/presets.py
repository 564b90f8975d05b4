"""Find packaged YAML files (configs and tables) by name, and files of the user by path."""

import difflib
import os
from pathlib import Path

from distill.errors import DistillError
from manifests.support.files import read_regular_file

CONFIGS, TABLES = "configs", "tables"  # kinds of packaged files
MAX_BYTES = 1 << 20
_PACKAGE = Path(__file__).parents[1]
_FOLDERS = {CONFIGS: _PACKAGE / "configs", TABLES: _PACKAGE / "tables" / "definitions"}


def text(folder: str, name: str) -> str:
    """Return the YAML text of a packaged file, including comments. ``folder`` is ``CONFIGS`` or ``TABLES``."""
    kind, paths, bare = folder.removesuffix("s"), files(folder), name.removesuffix(".yaml")
    if bare not in paths:
        near = difflib.get_close_matches(bare, paths, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose a file or one of {', '.join(paths)}"
        raise DistillError(f"{kind} {name!r}: is neither a file nor a packaged {kind}; {hint}")
    return paths[bare].read_text(encoding="utf-8")


def files(folder: str) -> dict[str, Path]:
    """Return the paths of the packaged configs or tables, by name. ``folder`` is ``CONFIGS`` or ``TABLES``."""
    return {file.stem: file for file in sorted(_FOLDERS[folder].rglob("*.yaml"), key=lambda file: file.stem)}


def headline(folder: str, name: str) -> str:
    """Return the purpose of a packaged file: its first comment up to the colon."""
    return text(folder, name).splitlines()[0].removeprefix("#").split(":")[0].strip()


def read(folder: str, name_or_path: str) -> tuple[str, str]:
    """Return the short name and the YAML text of the user's file at this path, or else of the packaged file."""
    path = Path(name_or_path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        return path.name.removesuffix(".yaml"), text(folder, name_or_path)
    try:
        return path.stem, read_regular_file(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the content is not UTF-8 text"
        kind = folder.removesuffix("s")
        raise DistillError(f"{kind} {path}: cannot be read: {reason}; choose another file") from error
