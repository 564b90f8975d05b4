"""Streamed sets: each step's patches are those its order names, from any step on, and a run resumes as exactly."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.data.cache import open_source
from distill.data.config import DataConfig
from distill.data.stream import Streamed
from distill.data.view import Resident
from distill.errors import DistillError
from manifests import open_patchset
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import Stopping
from tests.distill.running import same

CPU = torch.device("cpu")


@contextmanager
def stream(shards: Path, workers: int = 2, **values: Any) -> Iterator[Streamed]:
    config = DataConfig.model_validate({"cache": "none", "batch_size": 30, "workers": workers} | values)
    with open_source(open_patchset(shards), config, 3, CPU, lambda line: None) as source:
        assert isinstance(source, Streamed)
        yield source


@pytest.fixture
def pixels(patchset_path: Path) -> torch.Tensor:
    with open_source(open_patchset(patchset_path), DataConfig(workers=0), 0, CPU, lambda line: None) as source:
        assert isinstance(source, Resident)
        return source.samples


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_each_step_has_the_pixels_its_order_names(
    patchset_path: Path, pixels: torch.Tensor, workers: int, window: int
) -> None:
    with stream(patchset_path, workers, window=window) as source:
        for step in [*range(15), 3, 4, 40]:  # two epochs, back to the middle, and far ahead
            assert torch.equal(source.images(step), pixels[source.order.batch(step)])


def test_a_batch_larger_than_the_set(patchset_path: Path, pixels: torch.Tensor) -> None:
    with stream(patchset_path, 1, batch_size=700, window=1) as source:
        for step in range(3):
            assert torch.equal(source.images(step), pixels[source.order.batch(step)])


def test_damage_is_told_where_it_is_met(patchset_path: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(patchset_path, tmp_path / "shards"))
    path = shards / "patches-000001.tar"
    data = path.read_bytes()
    with pytest.raises(DistillError, match=r"patches-000001\.tar: .*get the set again"), stream(shards) as source:
        path.write_bytes(data[:5120] + bytes(len(data) - 5120))  # after it was verified, the members end early
        for step in range(8):
            source.images(step)


def test_a_decoding_process_that_is_killed(patchset_path: Path) -> None:
    with (
        pytest.raises(DistillError, match=r"a decoding process ended|fewer data\.workers"),
        stream(patchset_path, 1, window=1) as source,
    ):
        source.images(0)
        os.kill(source._reader._chunks._workers[0].pid, signal.SIGKILL)
        for step in range(1000):
            source.images(step)


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
        assert_one_line(run_distill(*arguments, cut, *sets), "stopped at step 18", status=130)
    resident = run_distill(*arguments, cut, *sets, "--set", "data.cache=ram", "--resume")
    assert_one_line(resident, "belongs to a run with view")
    assert run_distill(*arguments, cut, *sets, "--resume").status == 0
    assert same(tmp_path / "whole", cut)
