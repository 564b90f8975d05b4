"""Fixtures for tests of remote sets: a server that can misbehave, and an empty cache for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.remote import download
from tests.helpers.servers import Manners, serving


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, no proxy, and no pauses between attempts. Return the path of the cache."""
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def rough(patchset_path: Path) -> Iterator[Manners]:
    with serving(patchset_path) as manners:
        yield manners
