"""Test the estimated cost of a run."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import distill.training.run
from distill.config.schema import Config, SupervisedConfig
from distill.training.cost_estimate import estimate_cost, format_bytes, format_duration
from tests.conftest import Program
from tests.distill.conftest import CONFIG, TEACHER
from tests.helpers.running import same

CPU = torch.device("cpu")


def config(**train: Any) -> Config:
    return Config.model_validate(CONFIG | {"train": {"precision": "fp32"} | train})


def test_what_a_run_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.training.cost_estimate._step_seconds", lambda loop: [loop.train_step(0), 0.5][1])
    cost = estimate_cost(config(epochs=10), n=1000, size=32, device=CPU)
    assert cost.seconds == 625 * 0.5 and cost.images_per_second == 32
    assert cost.decoded == 1000 * 32 * 32 * 3 and cost.memory > cost.decoded
    numbers = 78_042 + 5 * 2 * 16  # numbers in a ResNet-8; Adam has two more for each
    assert 7 * 3.5 * numbers < cost.disk < 7 * 4.5 * numbers
    assert str(cost).startswith("about 5 min, ")
    labelled = estimate_cost(SupervisedConfig.model_validate(TEACHER), n=60, size=32, device=CPU)
    assert labelled.seconds == 6 * 0.5 and labelled.decoded == 0 and labelled.disk < cost.disk


def test_an_estimate_changes_no_run(
    arguments: list[Any], run_distill: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with an estimate has the same weights as a run without."""
    assert "estimated" not in run_distill(*arguments, tmp_path / "without").out
    monkeypatch.setattr(distill.training.run, "MIN_ESTIMATED_STEPS", 1)
    result = run_distill(*arguments, tmp_path / "with")
    assert re.search(r"^estimated cost: about \d+ s, .* of memory, \d+ MB of disk$", result.out, re.MULTILINE)
    assert same(tmp_path / "with", tmp_path / "without")


def test_amounts_as_people_say_them() -> None:
    assert [format_duration(t) for t in (0.4, 99.4, 100, 5900, 6000, 360_000)] == [
        *("0 s", "99 s", "2 min", "98 min", "1 h 40 min", "100 h 00 min")
    ]
    assert [format_bytes(n) for n in (0, 5_000_000, 999_000_000, 1_500_000_000)] == [
        "0 MB",
        "5 MB",
        "999 MB",
        "1.5 GB",
    ]
