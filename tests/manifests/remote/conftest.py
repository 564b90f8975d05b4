"""A server of a set that can be told to misbehave, and a cache of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.remote import download
from tests.helpers.servers import Manners, serving


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of another test, no proxy, and no pauses."""
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def rough(patchset_path: Path) -> Iterator[Manners]:
    with serving(patchset_path) as manners:
        yield manners
