"""Test that published bytes that do not fit the manifest are fetched once more, and then refused."""

import os
import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest

import manifests.remote.fetch
from manifests import open_patchset
from manifests.format.schema import make_manifest
from manifests.remote.fetch import fetch
from manifests.support.files import PART_PREFIX
from tests.helpers.fetched import fault, files
from tests.helpers.servers import Manners, serving

TAR, TABLE = "patches-000001.tar", "patches-000001.parquet"
CUT = 50_000


def test_a_byte_flipped_once_is_fetched_once_more(
    rough: Manners, patchset_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rough.flips.update([TAR, TABLE])
    assert files(fetch(rough.url)) == files(patchset_path)
    assert rough.sent[TAR] == 2 * (patchset_path / TAR).stat().st_size
    assert capsys.readouterr().err.count("downloading it once more") == 2


def test_a_byte_flipped_always_is_refused_and_the_rest_kept(rough: Manners, patchset_path: Path) -> None:
    rough.flips[TAR] = 1000
    assert f"/set/{TAR}: sha256 is " in fault(rough.url)
    folder = next(Path(os.environ["PATCHSET_CACHE"]).iterdir())
    left = {path.name for path in folder.iterdir()}
    assert not {TAR, f"{PART_PREFIX}{TAR}", "manifest.json"} & left
    assert Counter(rough.names())[TAR] == 2
    for thread in threading.enumerate():
        if thread.name.endswith("(worker)"):
            thread.join(10)
            assert not thread.is_alive()
    rough.flips.clear()
    rough.cut = CUT
    before = rough.sent.copy()
    assert files(fetch(rough.url)) == files(patchset_path)
    assert (rough.sent - before)[TAR] < 2 * (patchset_path / TAR).stat().st_size  # resumed, not started again


@pytest.mark.parametrize("where", ["licence", "parquet"])
def test_a_manifest_that_lies_beside_its_set_id(where: str, patchset_path: Path, tmp_path: Path) -> None:
    """A wrong card text or table is refused. ``set_id`` does not cover these values, but ``SHA256SUMS`` does."""
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    value = open_patchset(copy).manifest.model_dump(mode="json")
    if where == "licence":
        value["sources"][0]["licence"] = "anything"
    else:
        value["shards"][0]["parquet"]["sha256"] = "0" * 64
    made = make_manifest(**{k: v for k, v in value.items() if k not in ("format", "set_id")})
    (copy / "manifest.json").write_bytes(made.to_json())
    with serving(copy) as rough:
        assert "SHA256SUMS: the digest of " in fault(rough.url)
        assert Counter(rough.names()) == {"manifest.json": 2, "SHA256SUMS": 2}


def test_a_manifest_flipped_once_and_one_flipped_always(rough: Manners) -> None:
    rough.flips["manifest.json"] = 1
    fetch(rough.url)
    rough.flips["manifest.json"] = 1000
    fault(rough.url)


@pytest.mark.parametrize("length", [True, False])
def test_more_bytes_than_the_manifest_says(length: bool, rough: Manners, own_cache: Path) -> None:
    rough.extra[TAR], rough.length = bytes(1 << 20), length
    assert "the manifest declares" in fault(rough.url)
    largest = max(p.stat().st_size for p in own_cache.rglob("*") if p.is_file())
    assert largest <= max(p.stat().st_size for p in rough.folder.iterdir())


def test_fewer_bytes_than_the_manifest_says(rough: Manners, patchset_path: Path, tmp_path: Path) -> None:
    rough.folder = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    os.truncate(rough.folder / TAR, 100)
    assert "100 bytes, the manifest declares" in fault(rough.url)


def test_a_manifest_that_never_ends(rough: Manners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests.remote.fetch, "MAX_MANIFEST_BYTES", 1 << 20)
    rough.endless = {"manifest.json"}
    assert "at most 1048576 bytes" in fault(rough.url)
    assert rough.sent["manifest.json"] < 16 << 20  # sockets buffer more bytes
    rough.endless = {TAR}
    assert "more than the " in fault(rough.url)
