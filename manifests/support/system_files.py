"""Recognize files and folders that operating systems, file servers and notebooks create in any folder.

A folder with only these counts as empty. They belong to no set, and no image is searched in them.
"""

import re
from pathlib import Path

_NAMES = frozenset(
    {
        # macOS, and its zip archives
        ".ds_store", ".localized", "icon\r", "__macosx", ".spotlight-v100", ".trashes", ".fseventsd",
        ".temporaryitems", ".documentrevisions-v100", ".appledouble", ".appledb", ".appledesktop", ".apdisk",
        ".volumeicon.icns", ".metadata_never_index", ".com.apple.timemachine.donotpresent",
        "network trash folder",
        # Windows
        "thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin",
        "system volume information",
        # Linux desktops and file systems
        ".directory", "lost+found", ".gvfs", ".xdg-volume-info",
        # file servers: Synology, QNAP, NetApp
        "@eadir", "#recycle", "@recycle", ".@__thumb", "#snapshot", ".snapshot", ".snapshots",
        # notebooks
        ".ipynb_checkpoints",
    }
)  # fmt: skip
"""In lower case, as Windows and macOS compare names."""
_PATTERN = re.compile(
    r"\._.*"  # a file's attributes, which macOS stores beside it on foreign file systems
    r"|\.nfs[0-9a-f]{8,}"  # a deleted file that a process still has open, on NFS
    r"|\.fuse_hidden[0-9a-f]+"  # the same, on FUSE
    r"|\.trash(-\d+)?",
    re.DOTALL,
)


def is_system_file(name: str) -> bool:
    """Return whether a system creates files or folders of this name (not a path), in upper or lower case.

    True for ``.DS_Store``, ``._photo.jpg``, ``Thumbs.db``, ``@eaDir``, ``.nfs00a1…`` and ``.ipynb_checkpoints``.
    False for other hidden names, such as ``.git``.
    """
    lower = name.lower()
    return lower in _NAMES or _PATTERN.fullmatch(lower) is not None


def entries(folder: Path) -> list[Path]:
    """Return the files and folders in a folder, in no order, except system files."""
    return [path for path in folder.iterdir() if not is_system_file(path.name)]
