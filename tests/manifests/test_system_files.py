"""Names that systems leave in folders by themselves."""

import pytest

from manifests.system_files import is_system_file

SYSTEM = [
    ".DS_Store",
    "._photo.jpg",
    "._.DS_Store",
    "Thumbs.db",
    "THUMBS.DB",
    "desktop.ini",
    "Desktop.ini",
    ".directory",
    "@eaDir",
    ".nfs000000000123abcd00000001",
    ".fuse_hidden0000000a00000001",
    "__MACOSX",
    ".ipynb_checkpoints",
    ".Trash-1000",
    "lost+found",
    "Icon\r",
]
OTHERS = [
    "photo.jpg",
    ".git",
    ".gitattributes",
    ".nfs",
    ".nfsmount.conf",
    "thumbs",
    "DS_Store",
    "_DS_Store",
    "",
    ".",
    "README.md",
]


@pytest.mark.parametrize("name", SYSTEM)
def test_what_a_system_makes_is_known_by_its_name(name: str) -> None:
    assert is_system_file(name)


@pytest.mark.parametrize("name", OTHERS)
def test_a_users_file_is_not_a_system_file(name: str) -> None:
    assert not is_system_file(name)
