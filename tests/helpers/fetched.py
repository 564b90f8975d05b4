"""Helpers for tests of remote sets: contents of folders, sizes of files, texts of errors."""

from pathlib import Path

import pytest

from manifests import PatchSetError
from manifests.remote.fetch import fetch


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def sizes_sent(folder: Path) -> dict[str, int]:
    """Return the sizes of the files that a fetch downloads. All other files are made from the manifest."""
    names = [path.name for path in folder.iterdir() if path.name.startswith("patches-")]
    return {name: (folder / name).stat().st_size for name in (*names, "manifest.json", "SHA256SUMS")}


def fault(url: str) -> str:
    with pytest.raises(PatchSetError) as caught:
        fetch(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)
