"""Fixtures for tests of ``patchgen``."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def manifest_path(patchset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(patchset_path / "manifest.json", tmp_path / "manifest.json"))
