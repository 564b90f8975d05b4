"""Test students that start from weights of another network, or have the classifier of the teacher."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import distill
from distill.errors import DistillError
from distill.models import build_model
from distill.training.checkpoint import read_checkpoint
from distill.weights.files import load_weights, save_weights
from distill.weights.start import copy_classifier, copy_weights, describe_blocks
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import CONFIG, MEAN, STD, Stopping
from tests.helpers.running import same, timeless


def test_blocks_are_chosen_evenly() -> None:
    deep, student = build_model("resnet56", 4), build_model("resnet20", 4)
    blocks = copy_weights(student, deep, "the teacher")
    assert blocks == {f"layer{stage}": [0, 4, 8] for stage in (1, 2, 3)}
    own, others = student.state_dict(), deep.state_dict()
    for name, source in (("layer2.1.conv1.weight", "layer2.4.conv1.weight"), ("linear.bias", "linear.bias")):
        assert torch.equal(own[name], others[source])
    assert describe_blocks(blocks).startswith("blocks 0, 4, 8 of layer1; ")
    assert describe_blocks(copy_weights(student, build_model("resnet20", 4), "x")) == "all weights"


def test_a_deeper_student_repeats_blocks_but_not_the_first() -> None:
    blocks = copy_weights(build_model("resnet32", 4), build_model("resnet14", 4), "the teacher")
    assert blocks == {f"layer{stage}": [0, 1, 1, 1, 1] for stage in (1, 2, 3)}
    assert copy_weights(build_model("wrn-10-1", 4), build_model("wrn-28-1", 4), "x")["block1.layer"] == [0]
    vit = build_model("torchvision/resnet18", 4), build_model("torchvision/resnet34", 4)
    assert copy_weights(*vit, "x") == {"layer1": [0, 2], "layer2": [0, 3], "layer3": [0, 5], "layer4": [0, 2]}


@pytest.mark.parametrize(
    ("student", "source", "parts"),
    [
        ("resnet20", "wrn-16-1", ("has no weight for layer1.0.conv1.weight of the student",)),
        ("resnet20", "resnet32x4", ("has the shape (32, 3, 3, 3), expected (16, 3, 3, 3)", "conv1.weight")),
        ("resnet8", "resnet8-5", ("linear.weight", "(5, 64), expected (4, 64)")),
        ("vgg16-bn", "vgg19-bn", ("features.",)),
    ],
)
def test_other_weights_are_one_line(student: str, source: str, parts: tuple[str, ...]) -> None:
    other = build_model("resnet8", 5) if source == "resnet8-5" else build_model(source, 4)
    with pytest.raises(DistillError) as caught:
        copy_weights(build_model(student, 4), other, "the teacher")
    assert "\n" not in str(caught.value) and all(part in str(caught.value) for part in parts), caught.value


def test_the_classifier_is_copied_and_frozen() -> None:
    student, teacher = build_model("resnet8", 4), build_model("resnet14", 4)
    copy_classifier(student, teacher, 4)
    assert torch.equal(student.linear.weight, teacher.linear.weight) and not student.linear.weight.requires_grad  # type: ignore[union-attr]
    for network, part in (
        (build_model("wrn-10-2", 4), "(4, 64) with a bias, that of the teacher (4, 128)"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "the teacher does not end with a linear layer of 4 outputs"),
    ):
        with pytest.raises(DistillError, match=r"student\.head") as caught:
            copy_classifier(student, network, 4)
        assert part in str(caught.value)


@pytest.fixture
def deep_teacher(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    model = build_model("resnet20", 4)
    model(torch.randn(64, 3, 32, 32))
    save_weights(tmp_path / "deep.safetensors", model, arch="resnet20", num_classes=4, mean=MEAN, std=STD)
    return tmp_path / "deep.safetensors"


def run_arguments(arguments: list[Any], config_path: Path, teacher: Path, **student: Any) -> list[Any]:
    features = {"name": "features", "student": "layer3", "teacher": "layer3"}
    groups = {"teacher": {"arch": "resnet20", "num_classes": 4}, "student": {"arch": "resnet8"} | student}
    groups["optim"] = {"name": "adamw", "lr": 0.004, "weight_decay": 0.1}
    groups["loss"] = features if "head" in student else {"name": "kl"}
    config_path.write_text(yaml.safe_dump(CONFIG | groups))
    given = list(arguments)
    given[given.index("--teacher") + 1] = teacher
    return given


def test_a_run_with_the_teachers_head_and_weights_resumes_exactly(
    run_distill: Program,
    arguments: list[Any],
    config_path: Path,
    deep_teacher: Path,
    tmp_path: Path,
    stopping: Stopping,
) -> None:
    given = run_arguments(arguments, config_path, deep_teacher, head="teacher", init="teacher")
    whole = run_distill(*given, tmp_path / "whole")
    assert whole.status == 0 and "the student starts from the teacher: block 0 of layer1" in whole.out, whole
    with stopping(6):
        assert run_distill(*given, tmp_path / "cut").status == 130
    assert run_distill(*given, tmp_path / "cut", "--resume").status == 0
    assert same(tmp_path / "whole", tmp_path / "cut") and timeless(tmp_path / "whole") == timeless(tmp_path / "cut")
    student, teacher = load_weights(tmp_path / "cut/student.safetensors"), load_weights(deep_teacher)
    assert torch.equal(student.content["linear.weight"], teacher.content["linear.weight"])
    assert not torch.equal(student.content["conv1.weight"], teacher.content["conv1.weight"])
    summary = json.loads((tmp_path / "whole/summary.json").read_text())
    assert summary["student_head"] == "teacher"
    assert summary["student_init"]["blocks"] == {f"layer{stage}": [0] for stage in (1, 2, 3)}
    assert distill.load_network(tmp_path / "cut/student.safetensors").arch == "resnet8"


def test_a_run_starts_from_a_file(
    run_distill: Program, arguments: list[Any], config_path: Path, deep_teacher: Path, tmp_path: Path
) -> None:
    given = run_arguments(arguments, config_path, deep_teacher, init=str(deep_teacher))
    few = ["--set", "train.samples=16", "--set", "train.epochs=null", "--set", "optim.lr=1e-9"]
    assert run_distill(*given, tmp_path / "run", *few).status == 0
    student, teacher = load_weights(tmp_path / "run/student.safetensors"), load_weights(deep_teacher)
    assert torch.allclose(student.content["linear.weight"], teacher.content["linear.weight"], atol=1e-6)
    held = read_checkpoint(tmp_path / "run/checkpoint.safetensors")
    assert len(held["identity"]["initial_sha256"]) == 64 and "init" not in held["identity"]["student"]
    more = ["--set", "student.init=null", *few, "--resume"]
    assert_one_line(run_distill(*given, tmp_path / "run", *more), "initial_sha256")


@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        (["student.init=missing.safetensors"], ("missing.safetensors: the weight file does not exist",)),
        (["student.arch=wrn-10-1", "student.init=teacher"], ("student.init: ", "the teacher has no weight for")),
        (["student.head=teacher", "student.arch=wrn-10-2"], ("student.head: ", "(4, 128)")),
        (["student.head=techer"], ("student.head: Input should be 'teacher'",)),
        (
            ["student.head=teacher", "loss=[{name: features, student: layer2, teacher: layer2}]"],
            ("the features do not depend on layer3.0.conv1.weight",),
        ),
    ],
)
def test_a_wrong_start_is_one_line(
    run_distill: Program, arguments: list[Any], tmp_path: Path, sets: list[str], parts: tuple[str, ...]
) -> None:
    given = [text for each in sets for text in ("--set", each)]
    assert_one_line(run_distill(*arguments, tmp_path / "run", *given), *parts)
