"""Sets from elsewhere: whatever a server does, what arrives is the set, or one line says why not."""

import errno
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.registry import _registry

import manifests.cached
import manifests.remote
from manifests import PatchSetError, download, open_patchset, patience
from manifests.cached import SEEN_NAME
from manifests.download import read_whole
from manifests.files import PART_PREFIX
from manifests.remote import fetch
from manifests.schema import make_manifest
from manifests.sums import format_sums, read_sums
from manifests.transfers import Channel, alone
from manifests.urls import Answer, parse_url, shown
from tests.conftest import Program, assert_one_line
from tests.servers import Manners, serving

TAR, TABLE = "patches-000001.tar", "patches-000001.parquet"
CUT = 50_000


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


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != SEEN_NAME}


def sizes_sent(folder: Path) -> dict[str, int]:
    """Of the files that are fetched; those beside follow from the manifest."""
    names = [path.name for path in folder.iterdir() if path.name.startswith("patches-")]
    return {name: (folder / name).stat().st_size for name in (*names, "manifest.json", "SHA256SUMS")}


def fault(url: str) -> str:
    with pytest.raises(PatchSetError) as caught:
        fetch(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_connections_that_are_cut_lose_no_byte_and_fetch_none_twice(rough: Manners, patchset_path: Path) -> None:
    rough.cut = CUT
    seen: list[int] = []
    folder = fetch(rough.url, seen.append)
    assert files(folder) == files(patchset_path)
    sizes = Counter(sizes_sent(patchset_path))
    assert rough.sent == sizes
    assert sum(seen) == sum(size for name, size in sizes.items() if name.startswith("patches"))
    ranges = [asked for path, asked in rough.asked if path.endswith(TAR)]
    assert len(ranges) > 3 and ranges[:3] == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]


def test_a_second_use_asks_for_the_manifest_alone_and_hashes_nothing(
    rough: Manners, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(rough.url)
    rough.asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(manifests.cached, "file_digest", lambda path: pytest.fail(f"hashed {path}"))
        assert fetch(rough.url) == folder
    assert set(rough.names()) == {"manifest.json", "SHA256SUMS"}
    (folder / SEEN_NAME).write_text("{[")
    assert fetch(rough.url) == folder and (folder / SEEN_NAME).read_bytes()[:2] == b'{"'
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
    (folder / f"{PART_PREFIX}123-{SEEN_NAME}").write_text("{")
    (folder / f"{PART_PREFIX}{TABLE}").write_text("of a table that is there")
    (folder / SEEN_NAME).unlink()
    os.mkfifo(folder / SEEN_NAME)
    assert files(fetch(rough.url)) == files(patchset_path)


def test_something_else_under_a_files_name_is_told_before_anything_is_fetched(rough: Manners) -> None:
    folder = fetch(rough.url)
    (folder / TAR).unlink()
    (folder / TAR).mkdir()
    (folder / TABLE).unlink()
    assert f"{TAR}: is no regular file, though a set's file belongs there" in fault(rough.url)
    assert Counter(rough.names())[TABLE] == 1


def test_what_came_before_another_file_failed_is_not_hashed_again(
    rough: Manners, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    rough.statuses["patches-000002.parquet"] = [403]
    assert "403" in fault(rough.url)
    monkeypatch.setattr(manifests.cached, "file_digest", lambda path: pytest.fail(f"hashed {path}"))
    fetch(rough.url)


def test_a_server_that_ignores_ranges_is_started_over(rough: Manners, patchset_path: Path) -> None:
    rough.cut, rough.cuts, rough.ranges = CUT, 1, False
    assert files(fetch(rough.url)) == files(patchset_path)
    assert sum(rough.sent.values()) == sum(sizes_sent(patchset_path).values()) + CUT


def test_a_server_that_answers_other_ranges_is_asked_for_all(rough: Manners, patchset_path: Path) -> None:
    rough.cut, rough.cuts, rough.wrong_range = CUT, 1, True
    assert files(fetch(rough.url)) == files(patchset_path)


def test_a_server_that_always_cuts_and_ignores_ranges_is_given_up(rough: Manners) -> None:
    rough.cut, rough.ranges = CUT, False
    assert f"cut off after {CUT} of " in fault(rough.url)
    assert max(Counter(rough.names()).values()) <= download.ATTEMPTS + 1
    rough.cut, rough.cuts_of = None, {TAR: iter([20_000, 40_000] * 20)}
    assert f"{TAR}: cut off after " in fault(rough.url)


def test_a_page_in_place_of_a_file_loses_nothing_that_has_come(rough: Manners, patchset_path: Path) -> None:
    folder = fetch(rough.url)
    (folder / TAR).replace(folder / f"{PART_PREFIX}{TAR}")
    os.truncate(folder / f"{PART_PREFIX}{TAR}", CUT)
    rough.pages[TAR] = [b"<html>maintenance</html>"] * 3
    rough.asked.clear()
    assert files(fetch(rough.url)) == files(patchset_path)
    assert [asked for path, asked in rough.asked if path.endswith(TAR)] == [f"bytes={CUT}-"] * 4


@pytest.mark.parametrize(
    ("first", "again", "told"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", "less than 60000 bytes in 0.1 s"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", "less than 60000 bytes in"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y", "no answer within 0.1 s"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer within 0.1 s"),
    ],
)
def test_a_server_that_never_comes_to_an_end_is_given_up(
    first: bytes, again: bytes, told: str, rough: Manners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(patience, "PACE_SECONDS", 0.1)
    rough.chatter["manifest.json"] = first, again
    assert f"/set/manifest.json: the server is too slow: {told}" in fault(rough.url)
    assert len(rough.asked) == download.ATTEMPTS


def test_a_small_file_must_be_there_in_time(rough: Manners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WHOLE_SECONDS", 0.0)
    assert "/set/manifest.json: not there after 0 s; try again later" in fault(rough.url)


def test_a_file_in_many_pieces_takes_its_own_size_and_one_that_is_too_large_is_not_begun() -> None:
    class Place:
        def __init__(self, total: int | None, pieces: Iterator[bytes]) -> None:
            self.answer = Answer(start=0, total=total, pieces=pieces)

        def shown(self, name: str = "") -> str:
            return name

        def open(self, name: str, start: int) -> Answer:
            return self.answer

    pieces = (b"%02d" % (number % 100) for number in range(20_000))
    tracemalloc.start()
    try:
        assert len(read_whole(Place(None, pieces), "x", 1 << 20, alone())) == 40_000
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    with pytest.raises(PatchSetError, match="x: more than 9 bytes"):
        read_whole(Place(10, (pytest.fail("read") for _ in "x")), "x", 9, alone())


def test_a_byte_flipped_once_is_fetched_once_more(
    rough: Manners, patchset_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rough.flips.update([TAR, TABLE])
    assert files(fetch(rough.url)) == files(patchset_path)
    assert rough.sent[TAR] == 2 * (patchset_path / TAR).stat().st_size
    assert capsys.readouterr().err.count("fetching it once more") == 2


def test_a_byte_flipped_always_is_refused_and_the_rest_kept(rough: Manners, patchset_path: Path) -> None:
    rough.flips[TAR] = 1000
    assert f"/set/{TAR}: sha256 is " in fault(rough.url)
    folder = next(Path(os.environ["PATCHSET_CACHE"]).iterdir())
    left = {path.name for path in folder.iterdir()}
    assert not {TAR, f"{PART_PREFIX}{TAR}", "manifest.json"} & left
    assert Counter(rough.names())[TAR] == 2
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(_work)")]
    rough.flips.clear()
    rough.cut = CUT
    before = rough.sent.copy()
    assert files(fetch(rough.url)) == files(patchset_path)
    assert (rough.sent - before)[TAR] == (patchset_path / TAR).stat().st_size


@pytest.mark.parametrize("where", ["licence", "parquet"])
def test_a_manifest_that_lies_beside_its_set_id(where: str, patchset_path: Path, tmp_path: Path) -> None:
    """``set_id`` covers neither card texts nor tables; ``SHA256SUMS`` does."""
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    value = open_patchset(copy).manifest.model_dump(mode="json")
    if where == "licence":
        value["sources"][0]["licence"] = "anything"
    else:
        value["shards"][0]["parquet"]["sha256"] = "0" * 64
    made = make_manifest(**{k: v for k, v in value.items() if k not in ("format", "set_id")})
    (copy / "manifest.json").write_bytes(made.to_json())
    with serving(copy) as rough:
        assert "SHA256SUMS: names " in fault(rough.url)
        assert Counter(rough.names()) == {"manifest.json": 2, "SHA256SUMS": 2}


def test_a_manifest_flipped_once_and_one_flipped_always(rough: Manners) -> None:
    rough.flips["manifest.json"] = 1
    fetch(rough.url)
    rough.flips["manifest.json"] = 1000
    fault(rough.url)


def test_busy_servers_are_asked_again_and_missing_files_are_not(
    rough: Manners, patchset_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rough.statuses = {"manifest.json": [503], TAR: [500, 429, 502]}
    assert files(fetch(rough.url)) == files(patchset_path)
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if line.endswith("; trying again") or ": trying again" in line]) == 2, told
    rough.asked.clear()
    rough.statuses = {"manifest.json": [404]}
    assert "/set/manifest.json: the server answers 404 Not Found; check the URL" in fault(rough.url)
    rough.statuses = {"manifest.json": [403]}
    assert "you may not read it, or a signature has expired" in fault(rough.url)
    assert len(rough.asked) == 2
    rough.statuses = {"manifest.json": [503] * 100}
    assert "503 Service Unavailable; try again later" in fault(rough.url)
    assert len(rough.asked) == 2 + download.ATTEMPTS


def test_a_busy_server_says_when_to_come_again(
    rough: Manners, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paused: list[float] = []
    monkeypatch.setattr(Channel, "pause", lambda self, seconds: paused.append(seconds))
    rough.statuses, rough.after = {"manifest.json": [429, 503]}, 12
    fetch(rough.url)
    assert paused == [12, 12]
    assert "429 Too Many Requests; trying again in 12 s\n" in capsys.readouterr().err
    rough.statuses, rough.after = {"manifest.json": [429]}, 100_000
    fetch(rough.url)
    assert paused == [12, 12, 60]


def test_pages_encodings_and_users_without_a_password(rough: Manners) -> None:
    rough.pages["manifest.json"] = [b"\n<!DOCTYPE html>"] * 2
    assert "/set/manifest.json: is a web page, expected a manifest; check the URL" in fault(rough.url)
    rough.encoding = "gzip"
    assert "/set/manifest.json: comes in the encoding 'gzip'" in fault(rough.url.replace("//", "//token@"))
    assert rough.headers[-1]["Authorization"] == "Basic dG9rZW46"


@pytest.mark.parametrize("length", [True, False])
def test_more_bytes_than_the_manifest_says(length: bool, rough: Manners, own_cache: Path) -> None:
    rough.extra[TAR], rough.length = bytes(1 << 20), length
    assert "the manifest says" in fault(rough.url)
    largest = max(p.stat().st_size for p in own_cache.rglob("*") if p.is_file())
    assert largest <= max(p.stat().st_size for p in rough.folder.iterdir())


def test_fewer_bytes_than_the_manifest_says(rough: Manners, patchset_path: Path, tmp_path: Path) -> None:
    rough.folder = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    os.truncate(rough.folder / TAR, 100)
    assert "100 bytes, the manifest says" in fault(rough.url)


def test_a_manifest_that_never_ends(rough: Manners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests.remote, "MAX_MANIFEST_BYTES", 1 << 20)
    rough.endless = {"manifest.json"}
    assert "more than 1048576 bytes" in fault(rough.url)
    assert rough.sent["manifest.json"] < 16 << 20  # what sockets hold besides
    rough.endless = {TAR}
    assert "more than the " in fault(rough.url)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", ""])
def test_redirects_to_other_schemes_are_not_followed(target: str, rough: Manners) -> None:
    rough.redirects["manifest.json"] = target
    assert "which is not followed" in fault(rough.url)
    assert len(rough.asked) == 1


def test_redirects_are_followed_a_few_times(rough: Manners, patchset_path: Path) -> None:
    with serving(patchset_path) as other:
        rough.redirects = {TAR: f"{other.url}/elsewhere/{TAR}", TABLE: f"//127.0.0.1:{other.port}/{TABLE}"}
        other.cut = CUT
        user = rough.url.replace("//", "//lab:secret@")
        assert files(fetch(user)) == files(patchset_path)
        assert all("Authorization" in headers for headers in rough.headers)
        assert not any("Authorization" in headers for headers in other.headers)
    rough.redirects = {"manifest.json": "manifest.json"}
    assert "redirected more than 5 times" in fault(rough.url)


@pytest.mark.parametrize("end", ["", "/", "/manifest.json", "//"])
def test_a_query_goes_with_every_file_and_no_secret_is_shown(
    end: str, rough: Manners, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{rough.url}{end}?X-Sig=a%2Fb+c&k=s e".replace("//127", "//lab:se%40cret@127")
    fetch(url)
    assert {path.partition("?")[2] for path, _ in rough.asked} == {"X-Sig=a%2Fb+c&k=s%20e"}
    assert {path.rpartition("/")[0] for path, _ in rough.asked} == {"/set"}
    assert rough.headers[0]["Authorization"] == "Basic bGFiOnNlQGNyZXQ="
    rough.statuses = {"manifest.json": [404]}
    said = fault(url) + capsys.readouterr().err
    assert "cret" not in said and "a%2Fb" not in said and "/set/manifest.json?…" in said


def test_spaces_percent_signs_and_ipv6(patchset_path: Path) -> None:
    with serving(patchset_path) as rough:
        fetch(f"http://127.0.0.1:{rough.port}/my set/ä%20b/100%")
        assert rough.asked[0][0] == "/my%20set/%C3%A4%20b/100%25/manifest.json"
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return  # no IPv6 here
    with serving(patchset_path, host="::1") as rough:
        fetch(f"http://[::1]:{rough.port}/set")


def test_hosts_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr("manifests.patience.TIMEOUT", 0.05)
        assert "the server said nothing for 0.05 s" in fault(f"http://127.0.0.1:{port}/set")
    assert "Connection refused; try again later" in fault(f"http://127.0.0.1:{port}/set")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "there is no host of this name" in fault("http://nowhere.invalid/set")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://127.0.0.1:99999/set", "http://127.0.0.1:99999/set: is no URL: its host or port is none"),
        ("http://127.0.0.1:0/set", "names no host"),
        ("http:///set", "names no host"),
        ("http://[::1/set", "is no URL"),
        ("http://lab:se/cret@127.0.0.1/set", "is no URL"),
        ("http://127.0.0.1/a\nb", "control characters"),
        ("simplecache::http://127.0.0.1/set", "URLs within URLs"),
        ("zip::https://lab:se?cret@host/x", "URLs within URLs"),
        ("file://elsewhere/set", "on another machine"),
        ("https://lab:secret/x@host/set", "https://…@host/set: is no URL"),
        ("https://lab@home:se/cret@host/set", "https://…@host/set: is no URL"),
        ("https://lab:se℀cret@127.0.0.1/set", "https://127.0.0.1/set: is no URL"),
        ("http://lab:0/secret@host/set", "http://…@host/set: names no host"),
        ("http://host:0/set?sig=a@secret", "http://…: names no host"),
        ("http://host:0/set#token=secret", "http://host:0/set: names no host"),
        ("s3://AKIA:secret@lab/set", "s3://lab/set: keys are not read from a URL"),
        ("s3://AKIA:sec/ret@lab/set", "s3://…@lab/set: keys are not read from a URL"),
        ("file://", "names no path"),
        ("file:///a%00b", "names no path"),
    ],
)
def test_urls_that_are_none(url: str, part: str, run_patchgen: Program) -> None:
    said = fault(url)
    assert part in said
    told = run_patchgen("verify", url, "-v")
    assert_one_line(told, part, status=2)
    for secret in ("cret", "sec/", "AKIA"):
        assert secret not in said + told.err


def test_whatever_a_store_raises_is_told_in_one_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dir://x: " in fault("dir://x")
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem

    class OddError(Exception):
        """Of a package that nobody knows."""

    def odd(*arguments: object, **options: object) -> None:
        raise OddError("lab:se%40cret@host?key=sesame\nse@cret")

    monkeypatch.setattr(memory, "info", odd)
    told = fault("memory://lab:se%40cret@host/set?key=sesame")
    assert told == "memory://host/set?…/manifest.json: …@host?… …; try again later"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://lab:12345/67@host/set", "https://…@host/set"),
        ("https://lab@home:secret@host/a@b", "https://…@b"),
        ("https://token@host/npm/@lab/set", "https://host/npm/@lab/set"),
        ("https://host/set#token=secret", "https://host/set"),
        ("s3://lab/a#b?c", "s3://lab/a#b?…"),
        ("abfs://box@account:443/set", "abfs://account:443/set"),
    ],
)
def test_what_is_shown_of_a_url(url: str, seen: str) -> None:
    assert shown(url) == seen and parse_url(url) == url


def test_schemes_are_written_in_small_letters() -> None:
    assert parse_url("S3://Lab/Set") == "s3://Lab/Set"


def test_unknown_schemes_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Protocol not known: nothing" in fault("nothing://bucket/set")
    monkeypatch.delitem(_registry, "s3", raising=False)  # another test may have used it
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert "pip install 'single-image-distillation[remote]'" in fault("s3://bucket/set")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert "pip install 'single-image-distillation[remote]'" in fault("s3://bucket/set")


def test_file_urls_are_folders(patchset_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    copy = Path(shutil.copytree(patchset_path, tmp_path / "my set"))
    url = copy.as_uri()
    assert "%20" in url and open_patchset(url).folder == copy
    assert run_patchgen("verify", url).status == 0
    assert not (tmp_path / "cache").exists()


def test_a_disk_without_room_and_a_cache_that_cannot_be_written(
    rough: Manners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(manifests.cached.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 9))
        assert "0.0 GB free, the set needs 0.1 GB" in fault(rough.url)
    assert TAR not in rough.names()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "fsync", full)
        assert "no space left on the disk; free some, or set PATCHSET_CACHE" in fault(rough.url)
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
    (folder / f"{PART_PREFIX}{TAR}").write_bytes(b"x" * 70_000)  # a bad part is fetched again whole
    assert files(fetch(rough.url)) == files(patchset_path)
    (folder / TAR).replace(folder / f"{PART_PREFIX}{TAR}")  # killed before the rename
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
    assert err.splitlines()[-1] == "patchgen: interrupted; run the same command again to read it from the beginning"
    rough.stalled.clear()
    part = next(own_cache.rglob(f"*{PART_PREFIX}{TAR}"))
    have = part.stat().st_size
    assert files(fetch(rough.url)) == files(patchset_path)
    assert (f"/set/{TAR}", f"bytes={have}-") in rough.asked


def test_every_command_that_reads_takes_a_url(
    rough: Manners, patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    told = run_patchgen("info", rough.url)
    assert told.status == 0 and f"set_id       {open_patchset(patchset_path).manifest.set_id}" in told.out
    assert rough.names() == ["manifest.json"]
    again = run_patchgen("rebuild", "--manifest", rough.url, "--image", photo_path, "--out", tmp_path / "copy")
    assert again.status == 0 and set(rough.names()) == {"manifest.json"}
    for end in ("", "/", "?sig=a"):
        manifest = f"{rough.url}/manifest.json{end}"
        assert run_patchgen("diff", manifest, tmp_path / "copy" / "manifest.json").status == 0
        assert run_patchgen("diff", manifest, manifest).status == 0
    assert set(rough.names()) == {"manifest.json"}
    checked = run_patchgen("verify", rough.url, "--workers", 1)
    assert checked.status == 0 and "good: every file, member, row and digest of 200 patches" in checked.out
    assert run_patchgen("verify", rough.url, "--workers", 1, "-q").err == ""
    assert run_patchgen("diff", rough.url, tmp_path / "copy").status == 0
    assert run_patchgen("preview", rough.url, "--out", tmp_path / "sheet.png").status == 0
    assert run_patchgen("verify", patchset_path, "--workers", 1).status == 0
    extended = run_patchgen("extend", rough.url, "--n", 300, "--image", photo_path)
    assert_one_line(extended, f"{rough.url}: extend changes a folder; build the longer set to another --out")
    missing = run_patchgen("verify", f"http://127.0.0.1:{rough.port}/set", "-q")
    assert missing.status == 0
    rough.statuses = {"manifest.json": [404]}
    assert_one_line(run_patchgen("verify", rough.url), "404 Not Found")


def test_verify_reads_what_is_published_and_keeps_what_is_good(
    rough: Manners, patchset_path: Path, run_patchgen: Program
) -> None:
    folder = fetch(rough.url)
    (folder / TABLE).unlink()
    (folder / f"{PART_PREFIX}{TABLE}").write_bytes((patchset_path / TABLE).read_bytes()[:100])
    before = rough.sent.copy()
    assert run_patchgen("verify", rough.url, "--workers", 1).status == 0
    every = {path.name: path.stat().st_size for path in patchset_path.iterdir() if path.name != "README.md"}
    assert rough.sent - before == Counter(every)
    assert files(folder) == files(patchset_path)
    for name, told in ((TAR, "twice over"), ("index.json", "SHA256SUMS there says "), ("croissant.json", "says ")):
        rough.flips[name] = 2
        assert_one_line(run_patchgen("verify", rough.url, "-q"), f"{rough.url}/{name}: sha256 is ", told)
    rough.statuses["index.json"] = [404]
    assert_one_line(run_patchgen("verify", rough.url, "-q"), f"{rough.url}/index.json: the server answers 404")
    rough.asked.clear()
    assert_one_line(run_patchgen("verify", rough.url, "--fast"), "--fast looks at a folder", status=2)
    nothing = ("--regenerate", 1, "--image", folder / "nothing.png")
    assert_one_line(run_patchgen("verify", rough.url, *nothing), "nothing.png: cannot be read")
    assert not rough.asked
    assert files(fetch(rough.url)) == files(patchset_path) and set(rough.names()) == {"manifest.json", "SHA256SUMS"}


@pytest.mark.parametrize("name", ["patches-000000.idx", "croissant.json", "../../notes"])
def test_verify_looks_at_all_that_published_sums_name(
    name: str, patchset_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    named = read_sums(copy / "SHA256SUMS") | {name: hashlib.sha256(b"{}").hexdigest()}
    (copy / "SHA256SUMS").write_bytes(format_sums(named))
    if ".." not in name:
        (copy / name).write_bytes(b"{}")
    with serving(copy) as rough:
        told = run_patchgen("verify", rough.url, "-q")
        if name.endswith(".idx"):
            assert told.status == 0 and name in rough.names()
        else:
            end = (
                "croissant.json: is not what" if name == "croissant.json" else "SHA256SUMS: names ../../notes, which"
            )
            assert_one_line(told, f"{rough.url}/{end}")
        assert "notes" not in rough.names()


def test_paths_are_no_urls(photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    for words in (
        ("source", "noise", "--out", "s3://lab/noise.png"),
        ("preview", tmp_path, "--out", "s3://lab/sheet.png"),
        ("export", tmp_path, "--bagit", "s3://lab/bag"),
        ("pack", "s3://lab/images", "--out", tmp_path / "out"),
        ("build", "--image", "s3://lab/photo.png", "--n", 1, "--out", tmp_path / "out"),
    ):
        assert_one_line(run_patchgen(*words), ": is a URL, expected a path; only sets are taken from", status=2)


def test_a_set_opened_by_its_url_is_read_from_the_cache(rough: Manners, own_cache: Path) -> None:
    patchset = open_patchset(rough.url)
    assert patchset.folder.parent == own_cache
    assert patchset.folder.name.startswith(patchset.manifest.set_id)
