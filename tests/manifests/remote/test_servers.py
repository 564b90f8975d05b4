"""Test servers that cut connections, wait, redirect or send wrong answers.

The set is fetched completely, or one line says why not.
"""

import os
import tracemalloc
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from manifests import PatchSetError
from manifests.remote import download, store
from manifests.remote.download import read_small_file
from manifests.remote.fetch import fetch
from manifests.remote.store import RemoteStream, ShardStore
from manifests.remote.transfers import Channel, direct_channel
from manifests.support.files import PART_PREFIX
from tests.helpers.fetched import fault, files, sizes_sent
from tests.helpers.servers import Manners, serving

TAR, TABLE = "patches-000001.tar", "patches-000001.parquet"
CUT = 50_000
LOST = 1 << 16
"""The number of bytes that a cut connection may lose: those in the buffers of aiohttp and of the socket."""


def test_connections_that_are_cut_are_resumed(rough: Manners, patchset_path: Path) -> None:
    rough.cut = CUT
    seen: list[int] = []
    folder = fetch(rough.url, seen.append)
    assert files(folder) == files(patchset_path)
    sizes = Counter(sizes_sent(patchset_path))
    assert sum(seen) == sum(size for name, size in sizes.items() if name.startswith("patches"))
    ranges = [int(asked[6:-1]) for path, asked in rough.asked if path.endswith(TAR) and asked]
    assert len(ranges) > 2 and ranges == sorted(ranges)
    resent = rough.sent - sizes  # lost from aiohttp's buffer when a connection was cut
    assert all(count <= LOST * rough.names().count(name) for name, count in resent.items())


def test_a_server_that_ignores_ranges_is_started_over(rough: Manners, patchset_path: Path) -> None:
    rough.cut, rough.cuts, rough.ranges = CUT, 1, False
    assert files(fetch(rough.url)) == files(patchset_path)
    assert sum(rough.sent.values()) <= sum(sizes_sent(patchset_path).values()) + CUT + LOST


def test_a_server_that_answers_other_ranges_is_asked_for_all(rough: Manners, patchset_path: Path) -> None:
    rough.cut, rough.cuts, rough.wrong_range = CUT, 1, True
    assert files(fetch(rough.url)) == files(patchset_path)


def test_a_server_that_always_cuts_and_ignores_ranges_is_given_up(rough: Manners) -> None:
    rough.cut, rough.ranges = CUT, False
    assert ": the connection was cut; try again later" in fault(rough.url)
    assert max(Counter(rough.names()).values()) <= download.ATTEMPTS + 2  # a cut at another byte counts as progress
    rough.cut, rough.cuts_of = None, {TAR: iter([20_000, 40_000] * 20)}
    assert f"{TAR}: the connection was cut" in fault(rough.url)


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
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", "too slow: less than 60000 bytes in 0.1 s"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y", "did not answer in time"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "did not answer in time"),
    ],
)
def test_a_server_that_never_comes_to_an_end_is_given_up(
    first: bytes, again: bytes, told: str, rough: Manners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RESPONSE_SECONDS", 0.5)
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.1)
    rough.chatter["manifest.json"] = first, again
    said = fault(rough.url)
    assert "/set/manifest.json: " in said and told in said
    assert len(rough.asked) == download.ATTEMPTS


def test_a_file_in_many_pieces_takes_its_own_size_and_one_that_is_too_large_is_not_begun() -> None:
    class Store:
        def __init__(self, total: int | None, chunks: Generator[bytes, None, None]) -> None:
            self.stream = RemoteStream(start=0, total=total, chunks=chunks, close=lambda: closed.append(total))

        def display(self, name: str = "") -> str:
            return name

        def open(self, name: str, start: int = 0) -> RemoteStream:
            return self.stream

    closed: list[int | None] = []
    pieces = (b"%02d" % (number % 100) for number in range(20_000))
    tracemalloc.start()
    try:
        assert len(read_small_file(Store(None, pieces), "x", 1 << 20, direct_channel())) == 40_000
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    with pytest.raises(PatchSetError, match="x: the file is too large, expected at most 9 bytes"):
        read_small_file(Store(10, (pytest.fail("read") for _ in "x")), "x", 9, direct_channel())
    assert closed == [None, 10]


def test_an_open_connection_prints_nothing_when_the_program_ends(
    rough: Manners, caplog: pytest.LogCaptureFixture
) -> None:
    loop = ShardStore(rough.url).fs.loop
    loop.call_exception_handler({"message": "Unclosed connection"})  # as aiohttp does
    assert not caplog.records


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Invalid character in Content-Length"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", "Got more than 8190 bytes when reading"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n", "Invalid character in chunk size"),
        (b"HTTP/1.1 abc\r\n\r\n", "Bad status line"),
        (b"{}", "Bad status line"),
    ],
)
def test_answers_that_are_not_http_are_asked_for_again(answer: bytes, reason: str, rough: Manners) -> None:
    rough.chatter["manifest.json"] = answer, b""
    what = f"/set/manifest.json: the answer of the server is not valid HTTP ({reason}); try again later"
    assert fault(rough.url).endswith(what)
    assert len(rough.asked) == download.ATTEMPTS


def test_busy_servers_are_asked_again_and_missing_files_are_not(
    rough: Manners, patchset_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rough.statuses = {"manifest.json": [503], TAR: [500, 429, 502]}
    assert files(fetch(rough.url)) == files(patchset_path)
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if line.endswith("; trying again")]) == 2, told
    rough.asked.clear()
    rough.statuses = {"manifest.json": [404]}
    assert "/set/manifest.json: the server answers 404 Not Found; check the URL" in fault(rough.url)
    rough.statuses = {"manifest.json": [403]}
    assert "check your permissions, or get a new URL" in fault(rough.url)
    assert len(rough.asked) == 2
    rough.statuses = {"manifest.json": [503] * 100}
    assert "503 Service Unavailable; try again later" in fault(rough.url)
    assert len(rough.asked) == 2 + download.ATTEMPTS
    rough.asked.clear()
    rough.statuses = {"manifest.json": [500] * 100}
    assert "500 Internal Server Error; try again later" in fault(rough.url)
    assert len(rough.asked) == download.ATTEMPTS


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
    assert "/set/manifest.json: the server sent a web page, expected a manifest; check the URL" in fault(rough.url)
    rough.encoding = "gzip"
    assert "/set/manifest.json: the server uses the encoding 'gzip'" in fault(rough.url.replace("//", "//token@"))
    assert rough.headers[-1]["Authorization"] == "Basic dG9rZW46"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", ""])
def test_redirects_to_other_schemes_are_not_followed(target: str, rough: Manners) -> None:
    rough.redirects["manifest.json"] = target
    told = (
        "the server redirects too often, or to a URL that is not http" if target else "the server answers 302 Found"
    )
    assert told in fault(rough.url)
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
    assert "redirects too often" in fault(rough.url)
