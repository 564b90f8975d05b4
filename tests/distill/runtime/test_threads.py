"""Test how many threads a run uses.

The default is the number of cores that other programs leave free. The user or a checkpoint can set another number.
"""

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import torch

from distill.runtime import device as threads
from tests.conftest import Program
from tests.distill.conftest import Stopping
from tests.helpers.running import log_lines


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [([0.0, 0.0], 0), ([30.0, 30.0], 0), ([100.0, 2.0], 1), ([60.0, 40.0], 1), ([100.0, 80.0], 2)],
)
def test_busy_cores_are_counted(shares: list[float], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: shares)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert threads.busy_cores() == expected


@pytest.mark.parametrize(("busy", "expected"), [(0, 2), (1, 1), (2, 1)])
def test_threads_are_those_that_others_leave(busy: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    with log_lines() as lines:
        threads.choose_threads(None)
    assert torch.get_num_threads() == expected
    assert len(lines) == (expected < 2) and all("set OMP_NUM_THREADS=2 to use 2" in line for line in lines)


def test_the_users_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "busy_cores", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with log_lines() as lines:
        threads.choose_threads(None)
    assert torch.get_num_threads() == 2 and lines == []


def test_a_run_goes_on_with_the_threads_it_began_with(
    run_distill: Program, arguments: list[Any], tmp_path: Any, stopping: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "busy_cores", lambda: 1)
    with stopping(3):
        stopped = run_distill(*arguments, tmp_path / "run")
    assert (
        stopped.status == 130
        and "other programs keep 1 of 2 cores busy, so this run uses 1 thread instead of 2" in stopped.out
    )
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "busy_cores", lambda: 0)
    resumed = run_distill(*arguments, tmp_path / "run", "--resume")
    assert resumed.status == 0 and "will differ in rounding" not in resumed.out
    assert torch.get_num_threads() == 1
