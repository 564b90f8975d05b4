"""Test that a network is not evaluated on training images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import Program, assert_one_line
from tests.distill.conftest import TEACHER, png

NORM = ["--set", "teacher.mean=[0.5,0.4,0.3]", "--set", "teacher.std=[0.2,0.25,0.3]"]


def write(root: Path, numbers: range, size: int = 32) -> Path:
    """Write images into four class folders, and return ``root``. Each number is the seed of one image."""
    for number in numbers:
        folder = root / "abcd"[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        (folder / f"{number}.png").write_bytes(png(image))
    return root


@pytest.fixture
def teach(tmp_path: Path) -> list[Any]:
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(TEACHER))
    return ["train-teacher", "--config", tmp_path / "teacher.yaml", "--device", "cpu", "--out", tmp_path / "teacher"]


@pytest.mark.parametrize("evaluation", ["the same folder", "a copy", "a part", "a copy of another size"])
def test_training_images_are_no_evaluation_data(
    evaluation: str, teach: list[Any], tmp_path: Path, run_distill: Program
) -> None:
    data = write(tmp_path / "data", range(32))
    other = data if evaluation == "the same folder" else tmp_path / "copy"
    if other != data:
        write(other, range(12) if evaluation == "a part" else range(32))
    size = ["--set", "data.size=24"] if evaluation.endswith("size") else []
    result = run_distill(*teach, "--data", data, "--eval", other, *size)
    count = 12 if evaluation == "a part" else 32
    assert_one_line(
        result, f"{count} of {count} evaluation images are also training images in {data}", "choose evaluation images"
    )
    assert not (tmp_path / "teacher" / "teacher.safetensors").exists()


def test_some_images_in_common_are_said(teach: list[Any], tmp_path: Path, run_distill: Program) -> None:
    """Evaluation data may share some images with the training data. The number of shared images is printed."""
    data, other = write(tmp_path / "data", range(32)), write(tmp_path / "other", range(28, 40))
    result = run_distill(*teach, "--data", data, "--eval", other)
    assert result.status == 0, result.err
    assert "4 of 12 evaluation images are also training images" in result.out
    summary = json.loads((tmp_path / "teacher" / "summary.json").read_text())
    assert summary["classes"] == list("abcd")
    weights = tmp_path / "teacher" / "teacher.safetensors"
    told = run_distill("eval", "--weights", weights, "--data", data)
    assert told.status == 0 and "was trained on these images" in told.err
    assert "these are the images" not in run_distill("eval", "--weights", weights, "--data", other).err


def test_packed_images_are_no_evaluation_data(
    tmp_path: Path, config_path: Path, teacher_path: Path, run_patchgen: Program, run_distill: Program
) -> None:
    data = write(tmp_path / "data", range(32))
    assert run_patchgen("pack", data, "--out", tmp_path / "packed").status == 0
    train = ["train", "--shards", tmp_path / "packed", "--config", config_path, "--teacher", teacher_path]
    result = run_distill(*train, "--device", "cpu", "--eval", data, "--out", tmp_path / "run")
    assert result.status == 1 and "32 of 32 evaluation images are also training images in the set" in result.err
    other = write(tmp_path / "other", range(28, 40))
    result = run_distill(*train, "--device", "cpu", "--eval", other, "--out", tmp_path / "run")
    assert result.status == 0 and "4 of 12 evaluation images are also training images" in result.out, result.err


def test_a_student_has_its_teachers_class_names(
    teach: list[Any], patchset_path: Path, config_path: Path, tmp_path: Path, run_distill: Program
) -> None:
    data, other = write(tmp_path / "data", range(32)), write(tmp_path / "other", range(100, 140))
    assert run_distill(*teach, "--data", data, "--eval", other).status == 0
    base = ["--shards", patchset_path, "--config", config_path, "--device", "cpu"]
    weights = tmp_path / "teacher" / "teacher.safetensors"
    result = run_distill("train", *base, "--teacher", weights, "--eval", other, "--out", tmp_path / "run")
    assert result.status == 0 and f"evaluation data: 40 images of 4 classes in {other}" in result.out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["classes"] == list("abcd")
    (other / "a").rename(other / "e")  # the renamed folder is the last class folder
    command = ["eval", "--data", other, "--device", "cpu", "--json", "--weights"]
    assert_one_line(
        run_distill(*command, tmp_path / "run" / "student.safetensors"), "no classes named 'e'; 1 of 4 class names"
    )
    (other / "e").rename(other / "A")
    before = json.loads(run_distill(*command, weights).out)
    assert before["top1"] == json.loads((tmp_path / "teacher" / "summary.json").read_text())["top1"]
    assert run_distill("make-logits", *base, "--teacher", weights, "--out", tmp_path / "labels").status == 0
    run_distill("train", *base, "--teacher-logits", tmp_path / "labels", "--out", tmp_path / "stored")
    assert json.loads((tmp_path / "stored" / "summary.json").read_text())["classes"] == list("abcd")


def test_a_teacher_on_its_own_training_images_is_said(
    teach: list[Any], patchset_path: Path, config_path: Path, tmp_path: Path, run_distill: Program
) -> None:
    data = write(tmp_path / "data", range(32), size=40)
    assert run_distill(*teach, "--data", data).status == 0
    weights = tmp_path / "teacher" / "teacher.safetensors"
    base = ["--shards", patchset_path, "--config", config_path, "--device", "cpu", "--teacher", weights]
    result = run_distill("train", *base, "--eval", data, "--out", tmp_path / "run")
    assert result.status == 0 and "the teacher was trained on these images" in result.out
    assert f"evaluation data: 32 images of 4 classes in {data}, resized to 32 px" in result.out
    student = tmp_path / "run" / "student.safetensors"
    told = run_distill("eval", "--weights", student, "--teacher", weights, "--data", data, "--size", "32")
    assert told.status == 0 and f"{weights} was trained on these images" in told.err
