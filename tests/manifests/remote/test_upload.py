"""Test builds to a URL: the store has the whole set at the end, or no manifest. Other files do not change."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests import PatchSetError, open_patchset
from manifests.remote import download
from manifests.remote.claim import CLAIM_NAME
from manifests.remote.store import ShardStore, TemporaryError
from manifests.remote.upload import stage_upload
from tests.conftest import Program, Result, assert_one_line

Build = Callable[..., Result]
KILLED = """
import os, signal, sys
from manifests.remote.store import ShardStore
sent, send = [], ShardStore.put
def stop(self, source, name):
    sent.append(name)
    if len(sent) == int(os.environ["STOP_AT"]):
        os.kill(os.getpid(), signal.Signals[os.environ["STOP_BY"]])
    send(self, source, name)
ShardStore.put = stop
from patchgen.cli import main
main()
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def memory() -> Any:
    """Yield fsspec's store in memory, without files."""
    fs = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem()
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


@pytest.fixture
def arguments(photo_path: Path) -> list[Any]:
    """Return the command that built ``patchset_path``, without the value of --out."""
    base = ["build", "--image", photo_path, "--n", 200, "--shard-size", 80, "--format", "png"]
    return [*base, "--workers", 1, "--out"]


def local(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def stored(fs: Any, folder: str) -> dict[str, bytes]:
    return {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.find(folder)}


def in_bucket(s3: Any, prefix: str) -> dict[str, bytes]:
    listed = s3.list_objects_v2(Bucket="lab", Prefix=prefix).get("Contents", [])
    keys = [entry["Key"] for entry in listed]
    return {key.rpartition("/")[2]: s3.get_object(Bucket="lab", Key=key)["Body"].read() for key in keys}


def test_a_build_to_a_store_is_the_local_build(
    memory: Any, arguments: list[Any], patchset_path: Path, own_cache: Path, run_patchgen: Program
) -> None:
    built = run_patchgen(*arguments, "memory://lab/a/")
    assert built.status == 0, built.err
    assert "next: distill train --shards memory://lab/a/ " in built.out
    assert stored(memory, "/lab/a") == local(patchset_path)
    assert not list((own_cache / "out").iterdir())
    checked = run_patchgen("verify", "memory://lab/a", "--workers", 1)
    assert checked.status == 0 and open_patchset(patchset_path).manifest.set_id in checked.out
    opened = open_patchset("memory://lab/a/manifest.json")
    assert opened.manifest == open_patchset(patchset_path).manifest


def test_a_claim_comes_first_and_the_manifest_last(
    memory: Any, arguments: list[Any], run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, send = [], ShardStore.put

    def recorded(self: ShardStore, source: Path, name: str) -> None:
        assert not memory.exists("/lab/a/manifest.json")
        sent.append(name)
        send(self, source, name)

    monkeypatch.setattr(ShardStore, "put", recorded)
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    assert sent[:2] == [CLAIM_NAME] * 2 and sent[-1] == "manifest.json" and len(sent) == 13
    assert not memory.exists(f"/lab/a/{CLAIM_NAME}")


def test_what_lies_beside_a_set_is_sent_too(memory: Any, patchset_path: Path) -> None:
    with stage_upload("memory://lab/a") as upload:
        for name, data in local(patchset_path).items():
            (upload.folder / name).write_bytes(data)
        (upload.folder / "README.md").write_text("a card")
        seen: list[int] = []
        total = upload.num_bytes
        upload.send(seen.append)
    assert sum(seen) == total
    assert stored(memory, "/lab/a")["README.md"] == b"a card"


def test_an_upload_that_failed_goes_on(
    memory: Any, arguments: list[Any], patchset_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, send = [], ShardStore.put

    def failing(self: ShardStore, source: Path, name: str) -> None:
        sent.append(name)
        if name == "patches-000002.tar":
            raise TemporaryError(f"{self.display(name)}: no answer; try again later")
        send(self, source, name)

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "put", failing)
        result = run_patchgen(*arguments, "memory://lab/a", "-q")
    assert_one_line(result, "memory://lab/a/patches-000002.tar: no answer; try again later")
    assert sent.count("patches-000002.tar") == download.ATTEMPTS
    there = set(stored(memory, "/lab/a"))
    assert "manifest.json" not in there and CLAIM_NAME in there
    sent.clear()
    before = {path: memory.modified(path) for path in memory.find("/lab/a")}
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    assert stored(memory, "/lab/a") == local(patchset_path)
    kept = [path for path in memory.find("/lab/a") if before.get(path) == memory.modified(path)]
    assert len(kept) == len(there) - 1


def test_torn_and_missing_files_are_sent_again(
    memory: Any, arguments: list[Any], patchset_path: Path, run_patchgen: Program
) -> None:
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    memory.pipe_file("/lab/a/patches-000001.tar", b"torn")
    memory.rm_file("/lab/a/patches-000000.parquet")
    memory.rm_file("/lab/a/SHA256SUMS")
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    assert stored(memory, "/lab/a") == local(patchset_path)


def test_files_that_were_damaged_without_another_size_are_sent_again(
    memory: Any, arguments: list[Any], patchset_path: Path, run_patchgen: Program
) -> None:
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    names = ("patches-000001.tar", "index.json")
    for name in names:
        data = memory.cat_file(f"/lab/a/{name}")
        memory.pipe_file(f"/lab/a/{name}", data[:99] + bytes([data[99] ^ 1]) + data[100:])
    before = {path: memory.modified(path) for path in memory.find("/lab/a")}
    again = run_patchgen(*arguments, "memory://lab/a")
    assert again.status == 0 and again.err.count("the file is missing or damaged; sending it again") == 2
    assert stored(memory, "/lab/a") == local(patchset_path)
    assert {path.rpartition("/")[2] for path in before if before[path] != memory.modified(path)} == set(names)


def test_a_manifest_that_was_torn_while_it_was_sent_is_sent_again(
    memory: Any, arguments: list[Any], patchset_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = ShardStore.put

    def torn(self: ShardStore, source: Path, name: str) -> None:
        send(self, source, name)
        if name == "manifest.json":
            memory.pipe_file(self.path(name), source.read_bytes()[:900])
            raise PatchSetError("the end")

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "put", torn)
        assert_one_line(run_patchgen(*arguments, "memory://lab/a", "-q"), "the end")
    assert len(memory.cat_file("/lab/a/manifest.json")) == 900
    marker = memory.cat_file(f"/lab/a/{CLAIM_NAME}")
    memory.pipe_file(f"/lab/a/{CLAIM_NAME}", json.dumps({"build": "0" * 64}).encode())
    assert_one_line(run_patchgen(*arguments, "memory://lab/a", "-q"), "an unfinished upload of the build 0000")
    memory.pipe_file(f"/lab/a/{CLAIM_NAME}", marker)
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    assert stored(memory, "/lab/a") == local(patchset_path)


def test_what_cannot_be_sent_is_refused_before_it_is_built(
    memory: Any,
    arguments: list[Any],
    photo_path: Path,
    patchset_path: Path,
    run_patchgen: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: ShardStore, source: Path, name: str) -> None:
        raise PatchSetError("you may not write here")

    with monkeypatch.context() as patch:
        patch.setattr("patchgen.pipeline.build._finish", lambda *arguments: pytest.fail("built"))
        with monkeypatch.context() as inner:
            inner.setattr(ShardStore, "put", refuse)
            assert_one_line(run_patchgen(*arguments, "memory://lab/a"), "you may not write here")
        memory.pipe_file(f"/lab/a/{CLAIM_NAME}", json.dumps({"build": "0" * 64}).encode())
        words = ("--manifest", patchset_path, "--image", photo_path, "--out", "memory://lab/a", "--workers", 1)
        assert_one_line(run_patchgen("rebuild", *words), "which has other options")
    packing = ["pack", patchset_path, "--workers", 1, "--out"]
    refused = run_patchgen(*packing, "memory://lab/a")  # a pack's build id depends on its images
    assert "memory://lab/a: the upload of build 0000" in refused.err.splitlines()[0]
    kept = Path(refused.err.strip().rpartition("shards are kept in ")[2])
    packed = local(kept)
    memory.rm_file(f"/lab/a/{CLAIM_NAME}")
    with monkeypatch.context() as patch:
        patch.setattr(
            "patchgen.pipeline.build.build_shards",
            lambda *arguments: (_ for _ in ()) if not arguments[2] else pytest.fail("built"),
        )
        assert run_patchgen(*packing, "memory://lab/a").status == 0
    assert stored(memory, "/lab/a") == packed


def test_another_build_is_told_what_lies_where(
    memory: Any, arguments: list[Any], own_cache: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: ShardStore, source: Path, name: str) -> None:
        if name.endswith(".tar"):
            raise PatchSetError("no more today")
        send(self, source, name)

    send = ShardStore.put
    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "put", refuse)
        assert_one_line(run_patchgen(*arguments, "memory://lab/a"), "no more today")
    folder = next((own_cache / "out").iterdir()) / "set"
    other = run_patchgen(*arguments, "memory://lab/a", "--seed", 1, "-q")
    assert_one_line(
        other,
        f"memory://lab/a: the local copy of the set: {folder}: the folder contains a finished set with seed 0, but",
        "this build has seed 1; choose another --out, or give the same options as the first build",
    )
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    longer = run_patchgen(*arguments, "memory://lab/a", "--n", 300)
    assert_one_line(
        longer,
        "memory://lab/a: the local copy of the set: ",
        "a finished set of 200 patches, but this build has 300 patches; choose another --out",
    )


def test_places_of_different_machines_are_built_for_in_different_folders(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(url: str) -> Path:
        with stage_upload(url) as upload:
            return upload.home

    assert folder("memory://a/set") == folder("memory://a/set/")
    monkeypatch.setattr(ShardStore, "root", property(lambda self: "/set", lambda self, root: None), raising=False)
    assert folder("memory://lab:secret@a/set") == folder("memory://lab:changed@a/set")
    assert folder("memory://a/set") != folder("memory://b/set")
    here = folder("memory://a/set")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert folder("memory://a/set") != here


def test_bytes_that_do_not_arrive_are_noticed(
    memory: Any, arguments: list[Any], run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = ShardStore.put

    def torn(self: ShardStore, source: Path, name: str) -> None:
        send(self, source, name)
        if name.endswith("2.tar"):
            memory.pipe_file(self.path(name), b"torn")

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "put", torn)
        assert_one_line(
            run_patchgen(*arguments, "memory://lab/a"), "patches-000002.tar: the uploaded file has 4 bytes"
        )
    assert not memory.exists("/lab/a/manifest.json")
    assert run_patchgen(*arguments, "memory://lab/a").status == 0


@pytest.mark.parametrize("manifest", [None, b'{"x":'])
def test_a_lost_or_damaged_manifest_is_sent_again_by_the_same_build_only(
    memory: Any, manifest: bytes | None, arguments: list[Any], own_cache: Path, run_patchgen: Program
) -> None:
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    memory.pipe_file("/lab/a/README.md", b"edited")
    before = stored(memory, "/lab/a")
    memory.rm_file("/lab/a/manifest.json")
    if manifest is not None:
        memory.pipe_file("/lab/a/manifest.json", manifest)
    memory.pipe_file("/lab/a/patches-000001.tar", b"damaged")
    damaged = stored(memory, "/lab/a")
    for change in (["--seed", 1], ["--n", 160], ["--n", 300], ["--n", 199], ["--shard-size", 100]):
        other = run_patchgen(*arguments, "memory://lab/a", *change)
        assert other.status == 1
        assert "memory://lab/a: the local copy of the set: " in other.err.splitlines()[-1]
        assert "the table of the last shard is missing, damaged, or from a build with" in other.err.splitlines()[-1]
        assert stored(memory, "/lab/a") == damaged
        assert not any(path.is_file() for path in own_cache.rglob("*"))
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    assert stored(memory, "/lab/a") == before


def test_other_sets_and_other_files_are_refused_before_anything_is_written(
    memory: Any, arguments: list[Any], own_cache: Path, run_patchgen: Program
) -> None:
    assert run_patchgen(*arguments, "memory://lab/a").status == 0
    before = stored(memory, "/lab")
    other = run_patchgen(*arguments, "memory://lab/a", "--seed", 1)
    assert_one_line(
        other,
        "memory://lab/a: the local copy of the set: ",
        "the folder contains a finished set with seed 0, but this build has seed 1",
    )
    card = run_patchgen(*arguments, "memory://lab/a", "--license", "CC0")
    assert_one_line(card, "memory://lab/a: license, URL, attribution or name differ")
    unknown = "), but no valid manifest.json and no table of the last shard; choose another --out"
    assert_one_line(run_patchgen(*arguments, "memory://lab"), "memory://lab: the folder contains files (a" + unknown)
    memory.pipe_file("/lab/b/notes.txt", b"mine")
    assert_one_line(run_patchgen(*arguments, "memory://lab/b"), "contains files (notes.txt" + unknown)
    memory.pipe_file("/lab/c/manifest.json", b"{}")
    assert_one_line(run_patchgen(*arguments, "memory://lab/c", "-q"), "contains files (manifest.json" + unknown)
    memory.pipe_file(f"/lab/d/{CLAIM_NAME}", json.dumps({"build": "0" * 64}).encode())
    assert_one_line(run_patchgen(*arguments, "memory://lab/d", "-q"), "an unfinished upload of the build 0000")
    for path in ("b/notes.txt", "c/manifest.json", f"d/{CLAIM_NAME}"):
        memory.rm_file(f"/lab/{path}")
    assert stored(memory, "/lab") == before
    assert run_patchgen(*arguments, "memory://lab/a").status == 0  # refused builds leave no files
    assert_one_line(run_patchgen(*arguments, "http://127.0.0.1/a"), "no set can be written to a web server", status=2)


def test_two_builds_to_one_place(memory: Any) -> None:
    with (
        stage_upload("memory://lab/a"),
        pytest.raises(PatchSetError, match="memory://lab/a: another build writes to this store"),
        stage_upload("memory://lab/a/"),
    ):
        pytest.fail("held twice")


def test_packs_and_rebuilds_are_sent_as_well(
    memory: Any, photo_path: Path, patchset_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    made = run_patchgen("pack", patchset_path, "--out", "memory://lab/pack", "--workers", 1)
    assert made.status == 0, made.err
    assert run_patchgen("verify", "memory://lab/pack", "--workers", 1).status == 0
    out = ("--image", photo_path, "--out", "memory://lab/copy", "--workers", 1)
    assert run_patchgen("rebuild", "--manifest", patchset_path, *out).status == 0
    assert stored(memory, "/lab/copy") == local(patchset_path)


def kill(command: list[Any], at: int, by: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"STOP_AT": str(at), "STOP_BY": by}
    words = [sys.executable, "-c", KILLED, *map(str, command)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_build_to_s3_that_is_killed_and_run_again(
    s3: Any, arguments: list[Any], patchset_path: Path, run_patchgen: Program
) -> None:
    command = [*arguments, "s3://lab/sets/one"]
    for at, by, status in ((4, "SIGKILL", -signal.SIGKILL), (3, "SIGINT", 130)):
        killed = kill(command, at, by)
        assert killed.returncode == status, killed.stderr
        assert "manifest.json" not in in_bucket(s3, "sets/one/")
    assert killed.stderr.splitlines() == ["patchgen: interrupted; run the same command again to continue"]
    done = run_patchgen(*command)
    assert done.status == 0, done.err
    assert in_bucket(s3, "sets/one/") == local(patchset_path)
    checked = run_patchgen("verify", "s3://lab/sets/one/", "--workers", 1)
    assert checked.status == 0 and open_patchset(patchset_path).manifest.set_id in checked.out
    key = "sets/one/patches-000001.tar"
    data = s3.get_object(Bucket="lab", Key=key)["Body"].read()
    s3.put_object(Bucket="lab", Key=key, Body=data[:900] + b"x" + data[901:])
    assert_one_line(
        run_patchgen("verify", "s3://lab/sets/one", "-q"), f"s3://lab/{key}: sha256 is ", "(in two downloads)"
    )


def test_buckets_that_are_not_there(
    s3: Any, arguments: list[Any], run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchgen.pipeline.build._finish", lambda *arguments: pytest.fail("built"))
    result = run_patchgen(*arguments, "s3://nobody-has-this/set", "-q")
    assert_one_line(result, "s3://nobody-has-this/set/", "no such file or bucket")
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {"lab"}
    assert_one_line(run_patchgen("verify", "s3://lab/none"), "s3://lab/none/manifest.json: no such file or bucket")
