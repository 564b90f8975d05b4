"""Test builds by workers of a Dask cluster, or by jobs of a batch system. The set equals that of a local build."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manifests import open_patchset
from manifests.support.files import PART_PREFIX, hold_folder, part_prefix
from manifests.verify import verify
from patchgen.errors import PatchgenError
from patchgen.pipeline import dask_backend
from patchgen.pipeline.dask_backend import DaskExecutor, LocalOutput
from patchgen.pipeline.output_dir import PLAN_NAME
from patchgen.pipeline.shard import BuildContext, ShardTask
from tests.conftest import Program, assert_one_line

distributed = pytest.importorskip("distributed")
N, SHARD = 6_000, 250


def options(photo: Path, folder: Path, n: int = N) -> list[str]:
    return ["build", "--image", str(photo), "--n", str(n), "--shard-size", str(SHARD), "--out", str(folder)]


@pytest.fixture(scope="module")
def local(photo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the set on this machine, without a cluster."""
    folder = tmp_path_factory.mktemp("local") / "set"
    subprocess.run([sys.executable, "-m", "patchgen", *options(photo_path, folder)], check=True, capture_output=True)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """Start a cluster of four worker processes."""
    with distributed.LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=":0") as here:
        yield here


def test_a_worker_that_is_killed_costs_its_shard_alone(
    workers: Any, photo_path: Path, tmp_path: Path, local: Path
) -> None:
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "patchgen", *options(photo_path, folder)]
    with subprocess.Popen([*command, "--scheduler", workers.scheduler_address], stderr=subprocess.PIPE) as build:
        killed = None
        while killed is None and build.poll() is None:  # a temporary file's name contains the process id
            for part in folder.glob(f"{PART_PREFIX}*.tar"):
                killed = int(part.name.removeprefix(PART_PREFIX).split("-")[1])
                os.kill(killed, signal.SIGKILL)
                break
            time.sleep(0.001)
        said = build.communicate(timeout=120)[1].decode()
    assert killed is not None and build.returncode == 0, said
    assert files(folder) == files(local)


def test_a_cluster_of_its_own_and_a_build_that_is_finished_there(
    photo_path: Path, tmp_path: Path, local: Path, run_patchgen: Program
) -> None:
    folder = Path(shutil.copytree(local, tmp_path / "set"))
    (folder / "patches-000003.tar").unlink()
    result = run_patchgen(*options(photo_path, folder), "--scheduler", "local:2")
    assert result.status == 0, result.err
    assert "building 1 shard with 2 workers" in result.err
    assert files(folder) == files(local)


def test_workers_that_were_started_elsewhere_find_a_relative_folder(
    workers: Any, photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_patchgen(*options(photo_path, Path("set"), n=SHARD), "--scheduler", workers.scheduler_address)
    assert result.status == 0, result.err
    assert verify(tmp_path / "set").faults == ()


RECIPE = """
name: grain
version: 1
geometry: {crop: 0.5, area: [0.08, 1], aspect: [0.75, 1.34], oversize: 1.4, rotation: 30, shear: 10, corners: photo}
augment:
  - {name: "dask_steps:grain", strength: 4}
encoding: {format: png}
"""
STEPS = """
import numpy as np


def grain(patch, rng, *, strength=8.0):
    return np.clip(patch + rng.normal(0, strength, patch.shape), 0, 255).astype(np.uint8)
"""


def test_workers_import_the_steps_of_a_user(photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    """A module in the current folder is found by the workers that the command starts."""
    (tmp_path / "dask_steps.py").write_text(STEPS)
    (tmp_path / "grain.yaml").write_text(RECIPE)
    more = ["--recipe", "grain.yaml", "--allow-import", "dask_steps"]
    for name, workers in (("plain", ["--workers", "1"]), ("dask", ["--scheduler", "local:2"])):
        command = [sys.executable, "-m", "patchgen", *options(photo_path, Path(name), n=600), *more, *workers]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "dask") == files(tmp_path / "plain")
    assert open_patchset(tmp_path / "dask").manifest.recipe["profile"] == "fast"
    command = [*options(photo_path, tmp_path / "refused", n=600), "--recipe", str(tmp_path / "grain.yaml")]
    assert_one_line(run_patchgen(*command, "--scheduler", "local:2"), "--allow-import dask_steps")


def test_a_cluster_without_workers(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_backend, "CONNECT_SECONDS", 1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as here:
        address = here.scheduler_address
        result = run_patchgen(*options(photo_path, tmp_path / "set"), "--scheduler", address)
    assert result.status == 1 and f"{address} has no workers yet; start workers with 'dask worker" in result.err
    assert f"--scheduler {address}: the scheduler has no workers; start workers" in result.err


class Stub:
    """A Dask client with one worker. ``spec`` is the worker's answer to the search for the package."""

    def __init__(self, spec: Any) -> None:
        self.spec, self.cancelled = spec, False

    def nthreads(self) -> dict[str, int]:
        return {"tcp://node7:1": 1}

    def run(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return {"tcp://node7:1": self.spec}

    def scatter(self, values: Any, **options: Any) -> Any:
        return values

    def map(self, *arguments: Any, **options: Any) -> list[None]:
        return [None]

    def cancel(self, futures: Any) -> None:
        self.cancelled = True


def test_workers_without_the_package_and_a_scheduler_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = BuildContext(recipe=None, pyramids=(), size=8, seed=0, plan_id="0" * 64, folder=tmp_path)  # type: ignore[arg-type]
    tasks = [ShardTask(number=0, first_index=0, n=1)]
    for spec in (None, ModuleNotFoundError("No module named 'patchgen'")):
        with pytest.raises(
            PatchgenError, match="worker tcp://node7:1: the package single-image-distillation is not installed"
        ):
            list(DaskExecutor(Stub(spec), LocalOutput()).build_shards(context, tasks, print))  # type: ignore[arg-type]
    client = Stub("a spec")

    @contextlib.contextmanager
    def connected(*arguments: Any) -> Iterator[Stub]:
        yield client

    monkeypatch.setattr(dask_backend, "_client", connected)
    monkeypatch.setattr(distributed, "as_completed", lambda *_, **__: [(None, CancelledError())])
    with (
        pytest.raises(
            PatchgenError,
            match="--scheduler tcp://x:1: the connection to the scheduler ended during the build; run the same",
        ),
        dask_backend.connect("tcp://x:1", LocalOutput()) as executor,
    ):
        list(executor.build_shards(context, tasks, print))
    assert client.cancelled


def test_an_error_in_a_worker_is_one_line(workers: Any, photo_path: Path, tmp_path: Path) -> None:
    """A worker that does not see the build's folder raises an error of one line, which names the worker."""
    task = ShardTask(number=0, first_index=0, n=1)
    context = BuildContext(recipe=None, pyramids=(), size=8, seed=0, plan_id="0" * 64, folder=tmp_path)  # type: ignore[arg-type]
    with (
        distributed.Client(workers) as client,
        pytest.raises(
            PatchgenError,
            match=r"worker tcp://.*: this worker has no folder .*; choose an --out that all workers share",
        ),
    ):
        executor = DaskExecutor(client, LocalOutput())
        list(executor.build_shards(context, [task], lambda count: None))


def test_a_worker_with_other_versions_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(address="tcp://node7:1"))
    (tmp_path / PLAN_NAME).touch()
    context = BuildContext(recipe=None, pyramids=(), size=8, seed=0, plan_id="0" * 64, folder=tmp_path)  # type: ignore[arg-type]
    task = ShardTask(number=0, first_index=0, n=1)
    other = dask_backend._versions() | {"opencv-python-headless": "4.99.0"}
    with pytest.raises(
        PatchgenError,
        match=r"tcp://node7:1: the worker has opencv-python-headless 4\.\S+, but the build needs 4\.99\.0",
    ):
        dask_backend._build_in_worker(task, context, LocalOutput().begin(), other)


def test_a_scheduler_that_does_not_answer(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_backend, "CONNECT_SECONDS", 1)
    build = options(photo_path, tmp_path / "set")
    result = run_patchgen(*build, "--scheduler", "tcp://127.0.0.1:9")
    assert_one_line(result, "--scheduler tcp://127.0.0.1:9: the scheduler does not answer", "dask scheduler")
    bare = run_patchgen(*build, "--scheduler", "tls://127.0.0.1:9")  # without certificates
    assert bare.status == 1 and "Traceback" not in bare.err
    assert "--scheduler tls://127.0.0.1:9: the scheduler does not answer: TLS expects" in bare.err
    for wrong in ("local:", "local:0", "local:x", "tcp:x", "http://host", "local:٣", "tcp://user:word@host:1", ""):
        assert_one_line(run_patchgen(*build, "--scheduler", wrong), "is not an address of a scheduler", status=2)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert_one_line(
        run_patchgen(*build, "--scheduler", "local:1"), "pip install 'single-image-distillation[cluster]'"
    )


def test_jobs_write_into_no_store_and_nothing_there_is_made_longer(photo_path: Path, run_patchgen: Program) -> None:
    result = run_patchgen(*options(photo_path, Path("x"))[:-1], "s3://lab/set", "--shards", "0-1")
    assert_one_line(result, "s3://lab/set: --shards cannot build at a URL; build in a shared folder")
    words = ("extend", "s3://lab/set", "--n", N, "--image", photo_path, "--scheduler", "local:1")
    assert_one_line(run_patchgen(*words), "s3://lab/set: extend cannot change a set at a URL")


def test_jobs_that_build_some_shards_each(
    photo_path: Path, tmp_path: Path, local: Path, run_patchgen: Program
) -> None:
    """Jobs that run at the same time build their shards, and a last command builds the missing shards.

    Two jobs build the same shards, and one job is killed.
    """
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "patchgen", *options(photo_path, folder)]
    spans = ("0-7", "8-15", "16-99", "16-99", "8")
    jobs = [subprocess.Popen([*command, "--shards", span], stderr=subprocess.PIPE) for span in spans]
    while not list(folder.glob("patches-*.tar")):
        time.sleep(0.001)
    jobs[1].kill()
    for job, span in zip(jobs, spans, strict=True):
        said = job.communicate(timeout=120)[1].decode()
        assert job.returncode == (-signal.SIGKILL if span == "8-15" else 0), said
    assert (folder / PLAN_NAME).exists() and not (folder / "manifest.json").exists()
    result = run_patchgen(*options(photo_path, folder))
    assert result.status == 0 and files(folder) == files(local)
    assert verify(folder).faults == ()
    again = run_patchgen(*options(photo_path, folder), "--shards", "3", "--json")
    assert again.status == 0 and again.out == '{"shards": [3], "of": 24}\n'
    assert open_patchset(folder).manifest.n == N


def test_spans_that_are_none_and_a_build_that_would_finish_too_early(
    photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    folder = tmp_path / "set"
    build = options(photo_path, folder, n=2 * SHARD)
    for wrong in ("", "-", "1-", "-1", "3-2", "a", "1-2-3", "²"):
        assert_one_line(run_patchgen(*build, "--shards", wrong), "is not a range of shards", status=2)
    assert_one_line(run_patchgen(*build, "--shards", "2-3"), "the set has 2 shards, counted from 0", status=2)
    both = run_patchgen(*build, "--shards", "0", "--scheduler", "local:1")
    assert_one_line(both, "--shards and --scheduler cannot be used together", "remove one", status=2)
    assert run_patchgen(*build, "--shards", "1-7").out == "shard 1 of 2 is built\n" + NEXT
    other = options(photo_path, folder, n=3 * SHARD)
    assert_one_line(run_patchgen(*other, "--shards", "0"), "contains an unfinished build")
    with hold_folder(folder, shared=True):
        assert_one_line(run_patchgen(*build), "another build writes to this folder")
        assert run_patchgen(*build, "--shards", "0").status == 0
    with hold_folder(folder):
        assert_one_line(run_patchgen(*build, "--shards", "0"), "another build writes to this folder")


NEXT = "next: when all shards are built, run the same command without --shards\n"


def test_temporary_files_of_two_machines_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from manifests.support import files as module

    mine = part_prefix()
    monkeypatch.setattr(module.platform, "node", lambda: "another")
    theirs = part_prefix()
    assert mine != theirs and mine.split("-")[-2] == theirs.split("-")[-2] == str(os.getpid())
