"""Test whole runs on a tiny set: the files that a run writes, and what happens during training."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import distill.training.trainer
from distill.config import presets
from distill.config.schema import Config, parse_config
from distill.data.batches import Batch
from distill.data.labelled import load_labelled
from distill.evaluation.evaluator import logits_of, top_k
from distill.runtime.distributed import RunContext
from distill.targets.targets import TeacherTargets
from distill.targets.teacher import TeacherConfig, load_teacher
from distill.training.checkpoint import CHECKPOINT_NAME, KEYS, read_checkpoint
from tests.conftest import Program
from tests.helpers.running import rows, weights

CPU = torch.device("cpu")


def test_a_run_and_its_directory(
    run_distill: Program, arguments: list[Any], tmp_path: Path, eval_path: Path, teacher_path: Path
) -> None:
    out = tmp_path / "run"
    result = run_distill(*arguments, out, "--set", "eval.every=80")
    assert result.status == 0, result.err
    assert result.err == ""
    said = [line.split(":")[0] for line in result.out.splitlines() if ": top-1 " in line and line.startswith("step")]
    assert said == ["step 5", "step 10", "step 12"]  # the last evaluation is at the end of the run
    assert sorted(p.name for p in out.iterdir()) == [
        *(
            *(
                "checkpoint.previous.safetensors",
                "checkpoint.safetensors",
                "classes.json",
                "config.yaml",
                "metrics.jsonl",
            ),
            *("patches.json", "patches.png", "patchset.json", "report.html", "student.safetensors", "summary.json"),
        )
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["samples_seen"] == 192  # the 200 patches contain twelve whole batches of 16
    assert summary["seed"] == 0 and summary["images_per_second"] > 0
    assert set(summary) >= {"set_id", "teacher_sha256", "agreement", "seconds", "student_top1", "teacher_top1"}

    data = load_labelled(eval_path, None)
    assert summary["eval_sha256"] == data.sha256
    assert summary["eval_sha256"] in (out / "report.html").read_text()
    teacher = load_teacher(TeacherConfig(arch="resnet8", num_classes=4, weights=teacher_path), CPU)
    expected = logits_of(teacher.model, data, teacher.mean, teacher.std, RunContext(device=CPU))
    assert summary["teacher_top1"] == top_k(expected, data.labels, 1)
    assert [row["step"] for row in rows(out)] == [4, 5, 8, 10, 12, 12]
    assert [row["step"] for row in rows(out) if "student_top1" in row] == [5, 10, 12]
    assert rows(out)[-1]["student_top1"] == summary["student_top1"]

    evaluated = run_distill(
        *("eval", "--weights", out / "student.safetensors", "--arch", "resnet8", "--data", eval_path, "--json")
    )
    measured = json.loads(evaluated.out)
    assert (measured["arch"], measured["images"]) == ("resnet8", 20)
    assert measured["top1"] == summary["student_top1"] and measured["per_class"] == summary["student_per_class"]
    resolved = parse_config((out / "config.yaml").read_text(), "again", {}, Config)
    assert resolved.teacher.weights == teacher_path and resolved.data.batch_size == 16
    assert set(read_checkpoint(out / CHECKPOINT_NAME)) == KEYS


def test_the_loss_falls(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert run_distill(*arguments, tmp_path / "run", "--set", "train.epochs=8").status == 0
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]


def test_both_networks_see_the_same_pixels_and_the_teacher_stays(
    run_distill: Program, arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every step, teacher and student receive the same augmented images."""
    seen: list[tuple[str, torch.Tensor]] = []
    original, teach = distill.training.trainer.Trainer.train_step, TeacherTargets.__call__

    def watch(self: distill.training.trainer.Trainer, step: int) -> torch.Tensor:
        assert self.state.student.training
        hook = self.state.student.register_forward_pre_hook(lambda _, x: seen.append(("student", x[0].clone())))
        loss = original(self, step)
        hook.remove()
        return loss

    def watch_teacher(self: TeacherTargets, batch: Batch, x: torch.Tensor) -> torch.Tensor:
        seen.append(("teacher", x.clone()))
        return teach(self, batch, x)

    monkeypatch.setattr(TeacherTargets, "__call__", watch_teacher)
    monkeypatch.setattr(distill.training.trainer.Trainer, "train_step", watch)
    assert run_distill(*arguments, tmp_path / "run", "--set", "augment.cutmix_alpha=1").status == 0
    assert len(seen) == 24
    for (first, x), (second, y) in zip(seen[::2], seen[1::2], strict=True):
        assert (first, second) == ("teacher", "student") and torch.equal(x, y)
        assert x.shape == (16, 3, 32, 32) and x.is_contiguous(memory_format=torch.channels_last)


def test_bf16_runs_too(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    assert run_distill(*arguments, tmp_path / "run", "--set", "train.precision=bf16").status == 0
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(tmp_path / "run").values())


def test_an_untempered_loss_needs_no_surgery(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    """A loss without temperature can replace the loss of a config, although the config sets a temperature."""
    config = parse_config(presets.text(presets.CONFIGS, "resnet20"), "resnet20", {"loss.name": "mse"}, Config)
    assert config.loss.name == "mse"
    assert run_distill(*arguments, tmp_path / "run", "--set", "loss.name=hard").status == 0
