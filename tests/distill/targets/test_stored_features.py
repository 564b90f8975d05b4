"""Test stored features: training with them equals training with the features of the live teacher."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.targets.targets import FeatureTargets
from manifests.format.digest import file_digest
from tests.conftest import Program, assert_one_line
from tests.helpers.running import same

TERMS = ["{name: kl}", "{student: layer1, teacher: layer1}", "{student: layer3, teacher: layer3, pooled: true}"]


def loss(*positions: int) -> list[str]:
    """Return the options for a loss with some of ``TERMS``, in this order."""
    return ["--set", f"loss=[{', '.join(TERMS[i] for i in positions)}]"]


@pytest.fixture
def base(patchset_path: Path, config_path: Path) -> list[Any]:
    return ["--shards", patchset_path, "--config", config_path, "--device", "cpu"]


@pytest.fixture
def stored(run_distill: Program, base: list[Any], teacher_path: Path, tmp_path: Path) -> Path:
    out = tmp_path / "stored"
    result = run_distill("make-logits", *base, *loss(0, 1, 2), "--teacher", teacher_path, "--out", out)
    assert result.status == 0, result
    return out


def test_what_is_written(stored: Path) -> None:
    manifest = json.loads((stored / "labels.json").read_text())
    layer1, layer3 = {"module": "layer1", "shape": [16, 32, 32]}, {"module": "layer3", "shape": [64]}
    assert manifest["features"] == [layer1, layer3]
    assert np.load(stored / "logits-000000.npy").shape == (192, 4 + 16 * 32 * 32 + 64)


@pytest.mark.parametrize("positions", [(0, 1, 2), (2, 0)])
def test_training_from_them_is_training_with_the_teacher(
    run_distill: Program,
    base: list[Any],
    stored: Path,
    teacher_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    positions: tuple[int, ...],
) -> None:
    """A live teacher with outputs rounded to float16 leads to the same weights, also with a part of the features."""
    train = ["train", *base, *loss(*positions), "--teacher", teacher_path, "--out"]
    assert run_distill(*train, tmp_path / "run", "--teacher-logits", stored).status == 0
    original = FeatureTargets.__call__
    rounded = lambda self, batch, x: tuple(each.half() for each in original(self, batch, x))  # noqa: E731
    monkeypatch.setattr(FeatureTargets, "__call__", rounded)
    assert run_distill(*train, tmp_path / "live").status == 0
    assert same(tmp_path / "run", tmp_path / "live")


def test_a_run_without_feature_losses_uses_the_logits_only(
    run_distill: Program, base: list[Any], stored: Path, tmp_path: Path
) -> None:
    assert run_distill("train", *base, "--teacher-logits", stored, "--out", tmp_path / "run").status == 0


def test_batches_are_used_several_times(
    run_distill: Program, base: list[Any], teacher_path: Path, tmp_path: Path
) -> None:
    """A config with ``data.passes`` above 1 needs stored features, and the same config stores them."""
    given = [*base, *loss(0, 1), "--teacher", teacher_path, "--set", "data.passes=2", "--out"]
    assert_one_line(run_distill("train", *given, tmp_path / "live"), "data.passes 2", "distill make-logits")
    assert run_distill("make-logits", *given, tmp_path / "stored").status == 0
    assert run_distill("train", *given, tmp_path / "run", "--teacher-logits", tmp_path / "stored").status == 0


def test_what_is_missing_is_one_line(
    run_distill: Program, base: list[Any], stored: Path, teacher_path: Path, tmp_path: Path
) -> None:
    train = ["train", *base, "--teacher-logits", stored, "--out", tmp_path / "run"]
    assert_one_line(run_distill(*train, *loss(0, 1)), "add the teacher's weight file with --teacher")
    spatial = ["--set", "loss=[{name: kl}, {student: layer3, teacher: layer3}]", "--teacher", teacher_path]
    found = run_distill(*train, *spatial)
    assert_one_line(
        found, "needs the teacher's features layer3 (64, 8, 8)", "contains layer1 (16, 32, 32), layer3 (64)"
    )


def test_verify_computes_features_again(
    run_distill: Program, base: list[Any], stored: Path, teacher_path: Path
) -> None:
    verify = ["verify-logits", stored, *base, "--teacher", teacher_path]
    assert_one_line(run_distill(*verify), "a run with the features layer1 (16, 32, 32), layer3 (64)", "has none")
    verify += loss(0, 1, 2)
    assert "every digest is correct" in run_distill(*verify).out
    array = np.load(stored / "logits-000000.npy")
    array[:, -1] += 1
    np.save(stored / "logits-000000.npy", array)
    value = json.loads((stored / "labels.json").read_text())
    value["files"][0]["sha256"] = file_digest(stored / "logits-000000.npy")
    (stored / "labels.json").write_text(json.dumps(value))
    assert_one_line(run_distill(*verify), "a stored feature differs by 1.0")
