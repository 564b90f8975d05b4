"""Test the cache of remote sets: no file is fetched twice, and no damaged file is used."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import manifests.remote.fetch
from manifests import open_patchset
from manifests.remote import download
from manifests.remote.fetch import fetch
from manifests.support.files import PART_PREFIX
from tests.conftest import Program
from tests.helpers.fetched import fault, files
from tests.helpers.servers import Manners

TAR, TABLE = "patches-000001.tar", "patches-000001.parquet"


def test_a_second_use_asks_for_the_manifest_alone_and_hashes_nothing(
    rough: Manners, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(rough.url)
    rough.asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(manifests.remote.fetch, "file_digest", lambda path: pytest.fail(f"hashed {path}"))
        assert fetch(rough.url) == folder
    assert set(rough.names()) == {"manifest.json", "SHA256SUMS"}
    os.utime(folder / TAR)
    assert fetch(rough.url) == folder
    assert set(rough.names()) == {"manifest.json", "SHA256SUMS"}


def test_what_was_damaged_in_the_cache_is_fetched_again(rough: Manners, patchset_path: Path) -> None:
    folder = fetch(rough.url)
    data = (folder / TAR).read_bytes()
    (folder / TAR).write_bytes(data[:700] + b"x" + data[701:])
    os.truncate(folder / TABLE, 100)
    (folder / "patches-000002.tar").unlink()
    (folder / "patches-000000.tar").unlink()
    (folder / "patches-000000.tar").symlink_to(patchset_path / "patches-000000.tar")
    (folder / "SHA256SUMS").unlink()
    rough.asked.clear()
    assert files(fetch(rough.url)) == files(patchset_path)
    assert not (folder / "patches-000000.tar").is_symlink()
    assert Counter(rough.names())[TAR] == 1 and "patches-000002.parquet" not in rough.names()


@pytest.mark.parametrize("name", ["SHA256SUMS", "croissant.json", "index.json", "manifest.json"])
def test_small_files_that_were_damaged_in_the_cache_are_written_again(
    name: str, rough: Manners, patchset_path: Path, run_patchgen: Program
) -> None:
    folder = fetch(rough.url)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data.replace(b"1", b"2", 1) if name != "manifest.json" else data + b" ")
    assert run_patchgen("verify", rough.url, "--workers", 1).status == 0
    assert files(folder) == files(patchset_path)


def test_what_a_killed_writer_left_in_the_cache_goes(rough: Manners, patchset_path: Path) -> None:
    folder = fetch(rough.url)
    (folder / f"{PART_PREFIX}123-SHA256SUMS").write_text("{")
    (folder / f"{PART_PREFIX}{TABLE}").write_text("of a table that is there")
    assert files(fetch(rough.url)) == files(patchset_path)


def test_a_folder_under_a_files_name_is_told(rough: Manners) -> None:
    folder = fetch(rough.url)
    (folder / TAR).unlink()
    (folder / TAR).mkdir()
    assert f"{folder}" in fault(rough.url) and (folder / TAR).is_dir()


def test_what_came_before_another_file_failed_is_not_hashed_again(
    rough: Manners, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    rough.statuses["patches-000002.parquet"] = [403]
    assert "403" in fault(rough.url)
    monkeypatch.setattr(manifests.remote.fetch, "file_digest", lambda path: pytest.fail(f"hashed {path}"))
    fetch(rough.url)


def test_a_disk_without_room_and_a_cache_that_cannot_be_written(
    rough: Manners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "fsync", full)
        assert "no space left on the disk; free some space, or set PATCHSET_CACHE" in fault(rough.url)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "file"))
    assert "set PATCHSET_CACHE to another folder" in fault(rough.url)


def test_two_at_once_fetch_once(rough: Manners, patchset_path: Path) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(rough.url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 3 and len(set(folders)) == 1
    assert files(folders[0]) == files(patchset_path)
    assert rough.sent[TAR] == (patchset_path / TAR).stat().st_size


def test_a_killed_download_goes_on_from_its_part(rough: Manners, patchset_path: Path) -> None:
    folder = fetch(rough.url)
    data = (folder / TAR).read_bytes()
    (folder / TAR).unlink()
    (folder / f"{PART_PREFIX}{TAR}").write_bytes(data[:70_000])
    table = (folder / TABLE).read_bytes()
    (folder / TABLE).unlink()
    (folder / f"{PART_PREFIX}{TABLE}").write_bytes(table + b"more")
    rough.asked.clear()
    assert files(fetch(rough.url)) == files(patchset_path)
    assert sorted(asked or "" for path, asked in rough.asked if "patches" in path) == ["", "bytes=70000-"]
    (folder / TAR).unlink()
    (folder / f"{PART_PREFIX}{TAR}").write_bytes(b"x" * 70_000)  # a damaged part is fetched again completely
    assert files(fetch(rough.url)) == files(patchset_path)
    (folder / TAR).replace(folder / f"{PART_PREFIX}{TAR}")  # as if killed before the rename
    rough.asked.clear()
    assert files(fetch(rough.url)) == files(patchset_path)
    assert TAR not in rough.names()


def test_ctrl_c_keeps_what_has_come(rough: Manners, own_cache: Path, patchset_path: Path) -> None:
    rough.stalled = {TAR}
    half = (patchset_path / TAR).stat().st_size // 2
    command = [sys.executable, "-m", "patchgen", "verify", rough.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not [p for p in own_cache.rglob(f"*{TAR}") if p.stat().st_size >= half // 2]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (
        err.splitlines()[-1] == "patchgen: interrupted; run the same command again to read the set from the beginning"
    )
    rough.stalled.clear()
    part = next(own_cache.rglob(f"*{PART_PREFIX}{TAR}"))
    have = part.stat().st_size
    assert files(fetch(rough.url)) == files(patchset_path)
    assert (f"/set/{TAR}", f"bytes={have}-") in rough.asked


def test_a_set_opened_by_its_url_is_read_from_the_cache(rough: Manners, own_cache: Path) -> None:
    patchset = open_patchset(rough.url)
    assert patchset.folder.parent == own_cache
    assert patchset.folder.name.startswith(patchset.manifest.set_id)
