"""Test builds whose workers send shards to a store. All files in the store are equal to those of a local build."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manifests import PatchSetError, open_patchset
from manifests.remote.claim import CLAIM_NAME
from manifests.remote.download import verify_remote
from manifests.remote.store import ShardStore
from manifests.support.files import PART_PREFIX
from patchgen.pipeline import store_output
from tests.conftest import Program, assert_one_line
from tests.helpers.stores import URL, parts, put, stored, wait_until

distributed = pytest.importorskip("distributed")
N, SHARD = 6_000, 250
SHARDS = N // SHARD


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def options(photo: Path, out: str | Path, *more: object) -> list[str]:
    words = ("build", "--image", photo, "--n", N, "--shard-size", SHARD, "--out", out, *more)
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def local(photo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the set on this machine, without a cluster."""
    folder = tmp_path_factory.mktemp("local") / "set"
    subprocess.run([sys.executable, "-m", "patchgen", *options(photo_path, folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return the folder for temporary files of the workers."""
    return tmp_path / "scratch"


@pytest.fixture
def workers(s3: Any, scratch: Path) -> Iterator[Any]:
    """Start a cluster of four worker processes. Their environment contains the store's access keys."""
    with distributed.LocalCluster(
        n_workers=4, threads_per_worker=1, dashboard_address=":0", local_directory=str(scratch)
    ) as here:
        yield here


@contextlib.contextmanager
def building(photo: Path, workers: Any, *more: object) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "patchgen",
        *options(photo, URL, "--scheduler", workers.scheduler_address, *more),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as build:
        try:
            yield build
        finally:
            build.kill()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sent(cache: Path) -> list[str]:
    return [line for notes in cache.glob("out/*/sent.txt") for line in notes.read_text().splitlines()]


def test_a_worker_that_is_killed_costs_its_shard_and_the_set_is_the_local_one(
    s3: Any, workers: Any, photo_path: Path, own_cache: Path, scratch: Path, local: Path, run_patchgen: Program
) -> None:
    with building(photo_path, workers) as build:
        part = wait_until(lambda: next(scratch.rglob(f"{PART_PREFIX}*.tar"), None))
        os.kill(int(part.name.removeprefix(PART_PREFIX).split("-")[1]), signal.SIGKILL)
        while build.poll() is None:
            assert not list(own_cache.rglob("*.tar"))
            time.sleep(0.01)
        said = build.communicate()[1]
    assert build.returncode == 0, said
    assert stored(s3) == files(local)
    assert not list((own_cache / "out").iterdir())
    wait_until(lambda: not parts(scratch))
    again = run_patchgen("verify", URL, "--workers", 1)
    assert again.status == 0 and open_patchset(local).manifest.set_id in again.out


def test_a_build_that_is_stopped_goes_on_with_what_is_missing(
    s3: Any, workers: Any, photo_path: Path, own_cache: Path, scratch: Path, local: Path
) -> None:
    there = 0
    for by, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        with building(photo_path, workers) as build:
            wait_until(lambda more=there + 3: len(sent(own_cache)) >= more)
            build.send_signal(by)
            said = build.communicate(timeout=60)[1]
        assert build.returncode == status, said
        assert f"building {SHARDS - there} shard" in said
        there = len(sent(own_cache))
        assert 3 <= there < SHARDS and "manifest.json" not in stored(s3)
        assert CLAIM_NAME in stored(s3)
        wait_until(lambda: not parts(scratch))
    assert said.splitlines()[-1] == "patchgen: interrupted; run the same command again to continue"
    with building(photo_path, workers, "--seed", 1) as other:
        told = other.communicate(timeout=60)[1]
    assert other.returncode == 1 and "the local copy" in told
    (own_cache / "out").rename(own_cache / "aside")  # no local copy, as on another machine
    with building(photo_path, workers, "--seed", 1) as other:
        told = other.communicate(timeout=60)[1]
    assert other.returncode == 1 and len(told.splitlines()) == 1
    assert f"{URL}/{CLAIM_NAME}: this file belongs to an unfinished upload of the build " in told
    (own_cache / "aside").rename(own_cache / "out")
    lost = next(line.split()[1] for line in sent(own_cache))
    s3.delete_object(Bucket="lab", Key=f"sets/one/{lost}")
    with building(photo_path, workers) as build:
        said = build.communicate(timeout=120)[1]
    assert build.returncode == 0 and f"building {SHARDS - there + 1} shard" in said, said
    assert stored(s3) == files(local)


def test_a_finished_set_is_read_and_only_what_is_damaged_built_again(
    s3: Any, photo_path: Path, local: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in files(local).items():
        put(s3, name, data)
    command = options(photo_path, URL, "--scheduler", "local:2")
    whole = run_patchgen(*command)
    assert whole.status == 0 and "building" not in whole.err
    tar, table, index = "patches-000003.tar", "patches-000005.parquet", "index.json"
    for name in (tar, table, index):
        put(s3, name, files(local)[name][:-1] + b"x")
    s3.delete_object(Bucket="lab", Key="sets/one/patches-000007.tar")

    def silent(store: ShardStore, file: Any, *more: Any) -> None:
        if file.name == "patches-000009.tar":
            raise PatchSetError("no answer")
        verify_remote(store, file, *more)

    with monkeypatch.context() as patch:
        patch.setattr(store_output, "verify_remote", silent)
        assert_one_line(run_patchgen(*command, "-q"), "no answer")
    mended = run_patchgen(*command)
    assert mended.status == 0 and "building 3 shards with 2 workers" in mended.err, mended.err
    assert stored(s3) == files(local)
    other = run_patchgen(*command, "--seed", 1)
    assert_one_line(other, f"{URL}: the local copy of the set: ", "set with seed 0, but this build has seed 1")


def test_a_rebuild_and_a_build_that_began_without_a_cluster(
    s3: Any, photo_path: Path, local: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("rebuild", "--manifest", local, "--image", photo_path, "--out", URL, "--scheduler", "local:2")
    assert run_patchgen(*words).status == 0
    assert stored(s3) == files(local)
    for name in stored(s3):
        s3.delete_object(Bucket="lab", Key=f"sets/one/{name}")

    def refuse(self: ShardStore, source: Path, name: str) -> None:
        if name == "patches-000004.tar":
            raise PatchSetError("no more today")
        send(self, source, name)

    send = ShardStore.put
    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "put", refuse)
        assert_one_line(run_patchgen(*options(photo_path, URL, "--workers", 1)), "no more today")
    done = run_patchgen(*options(photo_path, URL, "--scheduler", "local:2"))
    assert done.status == 0 and "building" not in done.err
    assert stored(s3) == files(local)


def test_buckets_that_are_not_there_are_found_before_anything_is_built(
    s3: Any, photo_path: Path, run_patchgen: Program
) -> None:
    missing = options(photo_path, "s3://nobody-has-this/set", "--scheduler", "local:1")
    assert_one_line(run_patchgen(*missing, "-q"), "s3://nobody-has-this/set/", "no such file or bucket")
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {"lab"}
