"""Test that the teacher is measured in the same form in which it teaches.

This form has folded batch norms, and the precision of the run or of the stored logits.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.augment import normalize
from distill.models import build_model
from distill.weights.files import load_weights, save_weights
from distill.weights.load import put_state
from tests.conftest import Program
from tests.distill.conftest import MEAN, STD, png, write_tar


@pytest.fixture
def coarse(tmp_path: Path, teacher_path: Path, images: Any) -> tuple[Path, Path]:
    """Return the weight file of a teacher whose class depends on the precision, and a tar of 20 images.

    The teacher predicts class 1 for every image in float32, and class 0 in bf16. Five images are of class 0, 15 of
    class 1. The biases are 1002.1 and 1001.9. bf16 rounds them to 1004 and 1000, and rounds away features of about 1.
    """
    weights = load_weights(teacher_path)
    model = build_model("resnet8", 4).eval()
    put_state(model, weights.content)
    x = normalize(torch.from_numpy(images[0]), MEAN, STD)
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.weight[1] = 1
        model.linear.bias.zero_()
        features = model(x)[:, 1]
        model.linear.weight[1] = 1 / features.mean()
        assert float(features.min()) > 0.4 * float(features.mean())
        assert float(features.max()) < 1.6 * float(features.mean())
        model.linear.bias[:2] = torch.tensor([1002.1, 1001.9])
    path = tmp_path / "coarse.safetensors"
    save_weights(path, model, arch="resnet8", num_classes=4, mean=MEAN, std=STD)
    members = []
    for i, image in enumerate(images[0]):
        members += [(f"{i:04d}.cls", str(int(i >= 5)).encode()), (f"{i:04d}.png", png(image))]
    return path, write_tar(tmp_path / "coarse.tar", members)


def test_the_teacher_is_measured_as_it_teaches(
    run_distill: Program, patchset_path: Path, config_path: Path, coarse: tuple[Path, Path], tmp_path: Path
) -> None:
    """The folded copy of the teacher is measured, in the precision of the run.

    The network in the weight file would have other figures.
    """
    teacher, data = coarse
    told = run_distill("eval", "--weights", teacher, "--data", data)
    assert "top-1 75.00 %" in told.out
    base = ["--shards", patchset_path, "--config", config_path, "--teacher", teacher, "--eval", data]
    for precision, top1, of_class in (("fp32", 75.0, [0.0, 100.0]), ("bf16", 25.0, [100.0, 0.0])):
        out, only = tmp_path / precision, ["--set", f"train.precision={precision}"]
        told = run_distill("train", *base, *only, "--out", out)
        line = f"teacher resnet8: top-1 {top1:.2f} % on 20 images, computed in {precision} as in training"
        assert told.status == 0 and line in told.out, told
        summary = json.loads((out / "summary.json").read_text())
        assert (summary["teacher_top1"], summary["teacher_precision"]) == (top1, precision)
        assert summary["teacher_per_class"][:2] == of_class
        rows = json.loads((out / "classes.json").read_text())["teacher_network"]
        assert [sum(row) for row in rows] == ([0, 20, 0, 0] if precision == "fp32" else [20, 0, 0, 0])
        least = ["--set", "teacher.min_top1=50"]
        told = run_distill("make-logits", *base, *only, *least, "--out", tmp_path / f"{precision}-least")
        assert (told.status == 0) == (top1 > 50) and (told.status == 0 or "top-1 is 25.00 %" in told.err)


def test_stored_logits_were_computed_in_a_precision(
    run_distill: Program, patchset_path: Path, config_path: Path, coarse: tuple[Path, Path], tmp_path: Path
) -> None:
    """With stored logits, the teacher is measured in the precision of the logits, not in the precision of the run."""
    teacher, data = coarse
    base = ["--shards", patchset_path, "--config", config_path, "--teacher", teacher]
    told = run_distill("make-logits", *base, "--set", "train.precision=bf16", "--out", tmp_path / "labels")
    assert told.status == 0, told
    told = run_distill(
        *("train", *base, "--teacher-logits", tmp_path / "labels", "--eval", data, "--out", tmp_path / "run"),
        *("--set", "train.precision=fp32"),
    )
    assert told.status == 0 and "top-1 25.00 % on 20 images, computed in bf16 as in training" in told.out, told
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["teacher_top1"], summary["teacher_precision"]) == (25.0, "bf16")
    assert summary["environment"]["precision"] == "fp32"
