"""Replace ``~`` in paths where no shell did, as in a file or after ``=``."""

import os
from pathlib import Path


def expand_home(path: str) -> str:
    """Return a path with ``~`` or ``~USER`` at its beginning replaced by that home folder.

    Raises:
        ValueError: no such home folder is known; the message is one line.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser changes other paths too
    if path.startswith("~") and expanded.startswith("~"):
        name = path.partition("/")[0]
        raise ValueError(f"{path}: no home folder {name} is known; for a file of this name give ./{path}")
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
