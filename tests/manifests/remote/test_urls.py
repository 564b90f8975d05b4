"""Test which URLs are accepted, which data is sent with them, and how they are displayed."""

import shutil
import socket
import sys
from pathlib import Path

import pytest
from fsspec.registry import _registry

from manifests import open_patchset
from manifests.remote.fetch import fetch
from manifests.remote.store import ShardStore
from manifests.remote.urls import parse_url
from manifests.support.redaction import display_url
from tests.conftest import Program, assert_one_line
from tests.helpers.fetched import fault
from tests.helpers.servers import Manners, serving


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
        return  # this machine has no IPv6
    with serving(patchset_path, host="::1") as rough:
        fetch(f"http://[::1]:{rough.port}/set")


def test_hosts_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr("manifests.remote.store.SILENT_SECONDS", 0.05)
        assert "the server did not answer in time; try again later" in fault(f"http://127.0.0.1:{port}/set")
    assert "Connection refused; try again later" in fault(f"http://127.0.0.1:{port}/set")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "a host with this name does not exist" in fault("http://nowhere.invalid/set")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://127.0.0.1:99999/set", "http://127.0.0.1:99999/set: the host or the port of the URL is invalid"),
        ("http://127.0.0.1:0/set", "the URL has port 0"),
        ("http:///set", "the URL has no host"),
        ("http://[::1/set", "the host or the port of the URL is invalid"),
        ("http://lab:se/cret@127.0.0.1/set", "the host or the port of the URL is invalid"),
        ("http://127.0.0.1/a\nb", "control characters"),
        ("simplecache::http://127.0.0.1/set", "URLs within URLs"),
        ("zip::https://lab:se?cret@host/x", "URLs within URLs"),
        ("file://elsewhere/set", "names another machine"),
        ("https://lab:secret/x@host/set", "https://…@host/set: the host or the port of the URL is invalid"),
        ("https://lab@home:se/cret@host/set", "https://…@host/set: the host or the port of the URL is invalid"),
        ("https://lab:se℀cret@127.0.0.1/set", "https://127.0.0.1/set: the host or the port of the URL is invalid"),
        ("http://lab:0/secret@host/set", "http://…@host/set: the URL has port 0"),
        ("http://host:0/set?sig=a@secret", "http://…: the URL has port 0"),
        ("http://host:0/set#token=secret", "http://host:0/set: the URL has port 0"),
        ("s3://AKIA:secret@lab/set", "s3://lab/set: access keys in a URL are refused"),
        ("s3://AKIA:sec/ret@lab/set", "s3://…@lab/set: access keys in a URL are refused"),
        ("file://", "the URL has no path"),
        ("file:///a%00b", "the path contains a NUL byte"),
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
        """An exception of an unknown package."""

    def odd(*arguments: object, **options: object) -> None:
        raise OddError("lab:se%40cret@host?key=sesame\nse@cret")

    monkeypatch.setattr(memory, "info", odd)
    told = fault("memory://lab:se%40cret@host/set?key=sesame")
    assert told == "memory://host/set?…/manifest.json: …@host?… …; try again later"


def test_long_errors_of_stores_end_with_a_whole_word(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem

    def long(*arguments: object, **options: object) -> None:
        raise OSError("reason " * 100)

    monkeypatch.setattr(memory, "info", long)
    assert "reason reason …; try again later" in fault("memory://host/set")


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
    assert display_url(url) == seen and parse_url(url) == url


def test_hosts_of_other_scripts_are_written_as_dns_takes_them() -> None:
    assert ShardStore("https://lab:ä@bücher.example:8/x").root == "https://lab:ä@xn--bcher-kva.example:8/x"


def test_schemes_are_written_in_small_letters() -> None:
    assert parse_url("S3://Lab/Set") == "s3://Lab/Set"


def test_unknown_schemes_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Protocol not known: nothing" in fault("nothing://bucket/set")
    monkeypatch.delitem(_registry, "s3", raising=False)  # another test may have registered s3
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
