"""Test logging to TensorBoard, with and without the package."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Program
from tests.distill.conftest import Stopping


def test_tensorboard_gets_what_the_log_gets(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    command = [*arguments, run, "--set", "train.tensorboard=true", "-q"]
    with stopping(7):  # the run stops after a step with a log line
        assert run_distill(*command).status == 130
    assert run_distill(*command, "--resume").status == 0
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [(row["samples"], row["loss"]) for row in rows if "loss" in row]
    assert [(each.step, pytest.approx(each.value)) for each in events.Scalars("loss")] == expected


def test_tensorboard_that_is_not_installed(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = run_distill(*arguments, tmp_path / "run", "--set", "train.tensorboard=true")
    assert result.status == 1 and "pip install tensorboard" in result.err
