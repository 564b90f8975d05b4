"""Home folders in paths: ``~`` where no shell replaced it, as in a file or behind ``=``."""

import os
from pathlib import Path


def expand_home(path: str) -> str:
    """Replace ``~`` or ``~USER`` at the beginning of a path by that home folder; other paths stay as they are.

    Raises:
        ValueError: no such home folder is known; the message is one line.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser changes other paths too
    if path.startswith("~") and expanded.startswith("~"):
        name = path.partition("/")[0]
        raise ValueError(f"{path}: no home folder {name} is known here; a file of this name is ./{path}")
    return expanded


def user_cache() -> Path:
    """Return the user's cache folder: ``$XDG_CACHE_HOME``, or ``~/.cache``.

    Raises:
        ValueError: the user has no home folder; the message is one line.
    """
    try:
        return Path(expand_home(os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")))
    except RuntimeError as error:
        raise ValueError("this user has no home directory") from error
