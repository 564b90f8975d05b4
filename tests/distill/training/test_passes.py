"""Test views that are used several times: the pixels are equal, and the teacher computes each view once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import distill.targets.targets
from distill.data.batches import Batch
from distill.targets.targets import TeacherTargets
from distill.training.trainer import Trainer
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import Stopping
from tests.helpers.running import same

PASSES = ["--set", "data.passes=3", "--set", "train.samples=320"]
"""Options of a run with 20 steps of 16 samples. The first 7 steps draw views, and later steps use them again."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the steps in which a live teacher computes logits."""
    steps: list[int] = []
    original = TeacherTargets.__call__

    def call(self: TeacherTargets, batch: Batch, x: torch.Tensor) -> torch.Tensor:
        if self.cache is None or batch.step not in self.cache:
            steps.append(batch.step)
        return original(self, batch, x)

    monkeypatch.setattr(TeacherTargets, "__call__", call)
    return steps


def test_the_teacher_is_asked_once_about_each_view(
    run_distill: Program, arguments: list[Any], tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[torch.Tensor] = []
    original = Trainer.train_step

    def train_step(self: Trainer, step: int) -> torch.Tensor:
        images.append(self.view.batch(step).images.clone())
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step)
        assert run_distill(*arguments, tmp_path / "run", *PASSES).status == 0
    assert asked == list(range(7))
    assert all(torch.equal(image, images[step % 7]) for step, image in enumerate(images)) and len(images) == 20
    assert not torch.equal(images[0], images[1])


def test_memory_is_no_part_of_the_result(
    run_distill: Program, arguments: list[Any], tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory for logits, the teacher computes them in every step, and the weights are the same."""
    assert run_distill(*arguments, tmp_path / "memory", *PASSES).status == 0
    asked.clear()
    monkeypatch.setattr(distill.targets.targets, "free_memory", lambda: 0)
    result = run_distill(*arguments, tmp_path / "none", *PASSES)
    assert result.status == 0 and "the teacher computes the logits again in every pass" in result.out
    assert asked == [step % 7 for step in range(20)]
    assert same(tmp_path / "memory", tmp_path / "none")


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_a_run_stopped_in_its_second_pass_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, asked: list[int], stopping: Stopping, cache: str
) -> None:
    sets = [*PASSES, "--set", f"data.cache={cache}"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    with stopping(9):
        assert run_distill(*arguments, tmp_path / "cut", *sets).status == 130
    asked.clear()
    assert run_distill(*arguments, tmp_path / "cut", *sets, "--resume").status == 0
    assert asked == [3, 4, 5, 6, 0, 1, 2]
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_stored_logits_are_those_of_one_pass(
    run_distill: Program,
    arguments: list[Any],
    patchset_path: Path,
    config_path: Path,
    teacher_path: Path,
    tmp_path: Path,
) -> None:
    base = ["--shards", patchset_path, "--config", config_path, "--device", "cpu"]
    labels = tmp_path / "labels"
    assert run_distill("make-logits", *base, "--teacher", teacher_path, *PASSES, "--out", labels).status == 0
    assert [file["steps"] for file in json.loads((labels / "labels.json").read_text())["files"]] == [7]
    stored = ["train", *base, "--teacher-logits", labels]
    assert run_distill(*stored, *PASSES, "--out", tmp_path / "run").status == 0
    refused = run_distill(*stored, *PASSES, "--set", "data.passes=2", "--out", tmp_path / "more")
    assert_one_line(refused, "contains logits of 7 steps, but this run needs 10")
