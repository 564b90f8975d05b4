"""Test pools of processes that cannot start or do not end: the program prints one line in a limited time."""

import concurrent.futures
import contextlib
import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import manifests.support.processes
import manifests.verify
import patchgen.pipeline.process_pool
from manifests.support.processes import end_pool, start_server
from tests.conftest import Program, assert_one_line


@pytest.fixture
def build(photo_path: Path, tmp_path: Path) -> list[Any]:
    options = ["--image", photo_path, "--n", 400, "--shard-size", 100, "--out", tmp_path / "set"]
    return ["build", *options, "--workers", 2]


@pytest.fixture(params=["build", "verify"])
def command(request: pytest.FixtureRequest, build: list[Any], patchset_path: Path) -> list[Any]:
    return build if request.param == "build" else ["verify", patchset_path, "--workers", 2]


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EACCES])
def test_no_shared_memory(
    command: list[Any], run_patchgen: Program, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """If no lock can be created, the error names /dev/shm.

    In a container, /dev/shm may be small, read-only or missing.
    """

    def refuse(*values: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    reason = f"worker processes cannot start: {os.strerror(number)}; make /dev/shm"
    assert_one_line(run_patchgen(*command), reason, "or use --workers 1")
    assert run_patchgen(*command[:-1], 1).status == 0


def test_no_server(command: list[Any], run_patchgen: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", refuse)
    assert_one_line(run_patchgen(*command), f"cannot start: {os.strerror(errno.EAGAIN)}", "use --workers 1")


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Stop all worker processes (SIGSTOP) when the pool waits for them. Yield the list of these processes."""
    processes: list[Any] = []
    original = concurrent.futures.wait

    def wait(*values: Any, **options: Any) -> Any:
        if not processes:
            processes.extend(multiprocessing.active_children())
            for process in processes:
                os.kill(process.pid, signal.SIGSTOP)
        return original(*values, **options)

    monkeypatch.setattr(patchgen.pipeline.process_pool, "wait", wait)
    monkeypatch.setattr(manifests.support.processes, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(patchgen.pipeline.process_pool, "STUCK_SECONDS", 0.6)
    yield processes
    for process in processes:
        process.join(60)
        assert process.exitcode is not None


def test_processes_that_stand_still(build: list[Any], run_patchgen: Program, stuck: list[Any]) -> None:
    assert_one_line(run_patchgen(*build), "the worker processes wrote no patch for", "the disk responds")
    assert len(stuck) == 2


def test_verifying_processes_that_are_killed(
    patchset_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests.verify, "die_with_parent", os.abort)
    killed = run_patchgen("verify", patchset_path, "--workers", 2)
    assert_one_line(killed, "process was killed, possibly because memory")


def test_processes_that_do_not_end_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests.support.processes, "GRACE_SECONDS", 0.2)
    pool = ProcessPoolExecutor(2, mp_context=start_server("time"))
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
    pool.submit(time.sleep, 1000)
    processes = multiprocessing.active_children()
    end_pool(pool)
    for process in processes:
        process.join(60)
    assert processes and not any(process.is_alive() for process in processes)


def test_a_process_that_is_killed_while_the_others_stand_still(
    build: list[Any], run_patchgen: Program, stuck: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping: Callable[..., Any] = patchgen.pipeline.process_pool.wait

    def wait(*values: Any, **options: Any) -> Any:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stuck[0].pid, signal.SIGKILL) if stuck else None
        return stopping(*values, **options)

    monkeypatch.setattr(patchgen.pipeline.process_pool, "wait", wait)
    monkeypatch.setattr(patchgen.pipeline.process_pool, "STUCK_SECONDS", 60)
    assert_one_line(run_patchgen(*build), "process was killed, possibly because memory was short")
