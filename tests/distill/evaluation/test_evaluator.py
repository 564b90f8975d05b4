"""Test the metrics of networks against values worked out by hand."""

import json
import math
from pathlib import Path

import pytest
import torch

from distill.evaluation.evaluator import agreement, kl_to, per_class_top1, top_k
from tests.conftest import Program, assert_one_line

LOGITS = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
LABELS = torch.tensor([0, 2, 1, 2])


def test_top_k() -> None:
    assert [top_k(LOGITS, LABELS, k) for k in (1, 2, 3, 5)] == [50, 100, 100, 100]
    assert top_k(LOGITS, torch.tensor([2, 0, 2, 0]), 2) == 0


def test_per_class() -> None:
    assert per_class_top1(LOGITS, LABELS) == [100, 0, 50]
    assert per_class_top1(LOGITS[:1], LABELS[:1]) == [100, None, None]


def test_agreement() -> None:
    assert agreement(LOGITS, LOGITS.flip(0)) == 0 and agreement(LOGITS, 2 * LOGITS) == 100
    assert agreement(LOGITS, LOGITS[[0, 0, 0, 3]]) == 75


def test_kl_to_the_teacher() -> None:
    ln2 = math.log(2)  # softmax: (1/4, 1/2, 1/4) and (1/2, 1/4, 1/4); second row: equal
    teacher, student = torch.tensor([[0.0, ln2, 0.0], [1, 2, 3]]), torch.tensor([[ln2, 0.0, 0.0], [4, 5, 6]])
    assert kl_to(teacher, student) == pytest.approx(ln2 / 8, rel=1e-6)


def test_eval_beside_a_teacher(run_distill: Program, teacher_path: Path, eval_path: Path) -> None:
    base = ["eval", "--weights", teacher_path, "--data", eval_path, "--teacher", teacher_path]
    result = json.loads(run_distill(*base, "--json").out)
    assert result["agreement"] == 100 and result["kl_to_teacher"] == pytest.approx(0, abs=1e-12)
    assert result["teacher_top1"] == result["top1"] and len(result["per_class"]) == 4
    lines = run_distill(*base, "--per-class").out.splitlines()
    assert "top-5" in lines[0] and "agreement 100.00 %" in lines[1]
    assert [line.split(":")[0] for line in lines[2:]] == [f"class {i:4d}" for i in range(4)]


def test_eval_beside_a_teacher_of_other_classes(
    run_distill: Program, teacher_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    from distill.models import build_model
    from distill.weights.files import save_weights

    other = tmp_path / "ten.safetensors"
    save_weights(other, build_model("resnet8", 10), arch="resnet8", num_classes=10, mean=(0, 0, 0), std=(1, 1, 1))
    result = run_distill("eval", "--weights", teacher_path, "--data", eval_path, "--teacher", other, "-q")
    assert_one_line(result, "has 10 classes")
