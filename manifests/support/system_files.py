"""Recognize files and folders that operating systems, file servers and notebooks create in any folder.

A folder with only these files counts as empty. These files are not part of a set, and they are not read as images.
"""

import re
from pathlib import Path

_NAMES = frozenset(
    {
        # macOS, Windows
        ".ds_store", ".localized", "icon\r", "__macosx", ".spotlight-v100", ".trashes", ".fseventsd",
        "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        # Linux desktops and file systems, file servers, notebooks
        ".directory", "lost+found", "@eadir", "#recycle", "@recycle", "#snapshot", ".snapshot", ".snapshots",
        ".ipynb_checkpoints",
    }
)  # fmt: skip
"""In lower case, as Windows and macOS compare names."""
_PATTERN = re.compile(
    r"\._.*"  # attributes of a file, which macOS stores beside the file on foreign file systems
    r"|\.nfs[0-9a-f]{8,}|\.fuse_hidden[0-9a-f]+"  # a deleted file that a process still has open
    r"|\.trash(-\d+)?",
    re.DOTALL,
)


def is_system_file(name: str) -> bool:
    """Return whether ``name`` is a name that systems give to their own files, such as ``.DS_Store``. Case is ignored.

    Other hidden names, such as ``.git``, are not system files.
    """
    lower = name.lower()
    return lower in _NAMES or _PATTERN.fullmatch(lower) is not None


def entries(folder: Path) -> list[Path]:
    """Return all files and folders in ``folder`` except system files. The list has no defined order."""
    return [path for path in folder.iterdir() if not is_system_file(path.name)]
