"""Test commands on remote sets."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest

from manifests import open_patchset
from manifests.format.checksums import format_sums, read_sums
from manifests.remote.fetch import fetch
from manifests.support.files import PART_PREFIX
from tests.conftest import Program, assert_one_line
from tests.helpers.fetched import files
from tests.helpers.servers import Manners, serving

TAR, TABLE = "patches-000001.tar", "patches-000001.parquet"


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
    assert_one_line(
        extended, f"{rough.url}: extend cannot change a set at a URL; build the longer set to another --out"
    )
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
    for name, told in (
        (TAR, "(in two downloads)"),
        ("index.json", "SHA256SUMS lists "),
        ("croissant.json", "lists "),
    ):
        rough.flips[name] = 2
        assert_one_line(run_patchgen("verify", rough.url, "-q"), f"{rough.url}/{name}: sha256 is ", told)
    rough.statuses["index.json"] = [404]
    assert_one_line(run_patchgen("verify", rough.url, "-q"), f"{rough.url}/index.json: the server answers 404")
    rough.asked.clear()
    assert_one_line(run_patchgen("verify", rough.url, "--fast"), "--fast needs a folder", status=2)
    nothing = ("--regenerate", 1, "--image", folder / "nothing.png")
    assert_one_line(run_patchgen("verify", rough.url, *nothing), "nothing.png: the photo cannot be read")
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
                "croissant.json: the file does not match"
                if name == "croissant.json"
                else "SHA256SUMS: the file lists ../../notes, which"
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
        assert_one_line(run_patchgen(*words), ": this is a URL, expected a path; use a local path", status=2)
