"""Test streamed sets: every step has the patches of the order, and a stopped run resumes exactly."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.data.batches import Resident
from distill.data.cache import open_source
from distill.data.config import DataConfig
from distill.data.stream import Streamed
from distill.errors import DistillError
from distill.runtime.distributed import RunContext
from manifests import open_patchset
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import Stopping, assert_stopped
from tests.helpers.running import same

CPU = torch.device("cpu")


@contextmanager
def stream(shards: Path, workers: int = 2, **values: Any) -> Iterator[Streamed]:
    config = DataConfig.model_validate({"cache": "none", "batch_size": 30, "workers": workers} | values)
    with open_source(open_patchset(shards), config, 3, RunContext(device=CPU)) as source:
        assert isinstance(source, Streamed)
        yield source


@pytest.fixture
def pixels(patchset_path: Path) -> torch.Tensor:
    with open_source(open_patchset(patchset_path), DataConfig(workers=0), 0, RunContext(device=CPU)) as source:
        assert isinstance(source, Resident)
        return source.samples


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_each_step_has_the_pixels_its_order_names(
    patchset_path: Path, pixels: torch.Tensor, workers: int, window: int
) -> None:
    with stream(patchset_path, workers, window=window) as source:
        for step in [*range(15), 3, 4, 40]:  # two epochs, then earlier and later steps
            assert torch.equal(source.images(step), pixels[source.order.batch(step)])


def test_a_batch_larger_than_the_set(patchset_path: Path, pixels: torch.Tensor) -> None:
    with stream(patchset_path, 1, batch_size=700, window=1) as source:
        for step in range(3):
            assert torch.equal(source.images(step), pixels[source.order.batch(step)])


def test_damage_is_told_where_it_is_met(patchset_path: Path, tmp_path: Path) -> None:
    """If a shard is damaged after the verification, the step that reads the shard fails."""
    shards = Path(shutil.copytree(patchset_path, tmp_path / "shards"))
    path = shards / "patches-000001.tar"
    data = path.read_bytes()
    with pytest.raises(DistillError, match=r"patches-000001\.tar: .*file is corrupt"), stream(shards) as source:
        path.write_bytes(data[:5120] + bytes(len(data) - 5120))  # after the verification, cut the members off
        for step in range(8):
            source.images(step)


def processes(source: Streamed) -> list[Any]:
    return source._workers._processes


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_decoding_process_that_is_killed(patchset_path: Path, workers: int, number: signal.Signals) -> None:
    message = f"a decoding process was killed by {number.name}, "
    with pytest.raises(DistillError, match=message), stream(patchset_path, workers, window=1) as source:
        source.images(0)
        os.kill(processes(source)[-1].pid, number)
        for step in range(1000):
            source.images(step)


def test_a_process_that_cannot_start(patchset_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    with (
        pytest.raises(DistillError, match=r"data\.workers 2: .* cannot start: .*; set fewer data"),
        stream(patchset_path) as source,
    ):
        source.images(0)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_decoding_takes_nothing_of_shared_memory(
    patchset_path: Path, pixels: torch.Tensor, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding works if a container's /dev/shm is small, read-only or missing."""

    def refuse(*values: Any, **options: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "_new_using_fd_cpu", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)
    config = DataConfig(cache=cache, cache_dir=tmp_path / "new", batch_size=30)
    with open_source(open_patchset(patchset_path), config, 3, RunContext(device=CPU)) as source:
        assert torch.equal(source.images(2), pixels[source.order.batch(2)])


STREAM = """
import sys, torch
from distill.data.cache import open_source
from distill.data.config import DataConfig
from distill.runtime.distributed import RunContext
from manifests import open_patchset
config = DataConfig(cache="none", batch_size=100)
with open_source(open_patchset(sys.argv[1]), config, 3, RunContext(device=torch.device("cpu"))) as source:
    source.images(0)
    print("reading", flush=True)
    while len(sys.argv) > 2:
        source.images(0)
"""


def test_a_small_shared_memory(patchset_path: Path) -> None:
    """Decoding works in a program whose /dev/shm has only 64 kB."""
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    try:
        subprocess.run([*alone, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small /dev/shm")
    command = [*alone, f'{mount} && exec "$@"', "sh", sys.executable, "-c", STREAM, str(patchset_path)]
    assert "reading" in subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_program(patchset_path: Path, number: signal.Signals) -> None:
    """When the program is killed or interrupted, the decoding processes end too."""
    command = [sys.executable, "-c", STREAM, str(patchset_path), "forever"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        while not program.stdout.readline().startswith("reading"):
            pass
        program.send_signal(number)
        assert program.communicate(timeout=60) == ("", None)  # end of file: no process has the pipe open


def test_a_streamed_run_resumes_exactly(
    run_distill: Program,
    arguments: list[Any],
    tmp_path: Path,
    stopping: Stopping,
) -> None:
    sets = ["--set", "data.cache=none", "--set", "data.window=2", "--set", "train.epochs=2"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    assert not (tmp_path / "cache").exists()
    cut = tmp_path / "cut"
    with stopping(17):
        assert_stopped(run_distill(*arguments, cut, *sets), "stopped at step 18")
    resident = run_distill(*arguments, cut, *sets, "--set", "data.cache=ram", "--resume")
    assert_one_line(resident, "other values: view.order.window was 2, is now nothing")
    assert run_distill(*arguments, cut, *sets, "--resume").status == 0
    assert same(tmp_path / "whole", cut)
