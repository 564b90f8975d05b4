"""Test weight files and teachers: save and load, published files, and one line for every fault."""

import fractions
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from distill.config.schema import NetworkConfig
from distill.errors import DistillError
from distill.models import build_model
from distill.targets.teacher import TeacherConfig, load_teacher
from distill.weights.files import load_weights, read_safetensors, save_weights, tensors_digest
from distill.weights.load import count_classes
from distill.weights.normalization import check_mean, check_std
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import MEAN, STD

CPU = torch.device("cpu")


def config(path: Path | None, **changes: object) -> TeacherConfig:
    return TeacherConfig(**({"arch": "resnet8", "num_classes": 4, "weights": path} | changes))


def test_round_trip(teacher_path: Path) -> None:
    weights = load_weights(teacher_path)
    assert (weights.arch, weights.num_classes, weights.mean, weights.std) == ("resnet8", 4, MEAN, STD)
    assert count_classes(weights, "resnet8") == 4
    teacher = load_teacher(config(teacher_path), CPU)
    assert all(torch.equal(teacher.model.state_dict()[k], v) for k, v in weights.content.items())
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_published_pytorch_files(teacher_path: Path, tmp_path: Path, wrap) -> None:
    state = load_weights(teacher_path).content
    torch.save(wrap(state), tmp_path / "t.th")
    teacher = load_teacher(config(tmp_path / "t.th", mean=MEAN, std=STD), CPU)
    assert torch.equal(teacher.model.conv1.weight, state["conv1.weight"])
    with pytest.raises(DistillError, match=r"set teacher\.mean"):
        load_teacher(config(tmp_path / "t.th"), CPU)


class Code:
    """An object whose pickle calls ``print`` when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran code",)


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Code()}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 100)
    for name in ("evil.pt", "list.pt", "junk.pt", "empty.pt", "junk.safetensors"):
        with pytest.raises(DistillError) as caught:
            load_weights(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
    assert "ran code" not in capsys.readouterr().out
    torch.save({"model": {}, "opt": fractions.Fraction(1, 2)}, tmp_path / "options.pt")
    with pytest.raises(DistillError, match=r"options\.pt: contains an object fractions\.Fraction, which might"):
        load_weights(tmp_path / "options.pt")
    with pytest.raises(DistillError, match="the weight file does not exist"):
        load_weights(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"weights": None}, "pass the teacher's weight file with --teacher"),
        ({"num_classes": 10}, "has 4 classes, but num_classes is 10"),
        ({"arch": "resnet20"}, "contains a resnet8, but arch is resnet20"),
        ({"mean": (0.1, 0.1, 0.1)}, "the file declares mean (0.5, 0.4, 0.3), but teacher.mean is (0.1, 0.1, 0.1)"),
    ],
)
def test_a_teacher_that_does_not_fit(teacher_path: Path, changes: dict[str, object], part: str) -> None:
    with pytest.raises(DistillError) as caught:
        load_teacher(config(teacher_path, **changes), CPU)
    assert part in str(caught.value)


def test_plain_files_that_do_not_fit(teacher_path: Path, tmp_path: Path) -> None:
    state = load_weights(teacher_path).content
    torch.save(state, tmp_path / "t.pt")
    with pytest.raises(DistillError, match="has 4 classes, but num_classes is 5"):
        load_teacher(config(tmp_path / "t.pt", num_classes=5), CPU)
    with pytest.raises(
        DistillError, match=r"resnet14: the parameter layer1\.1\.bn1\.bias \(and \d+ more\) is missing"
    ):
        load_teacher(config(tmp_path / "t.pt", arch="resnet14"), CPU)


def test_metadata_that_is_damaged(tmp_path: Path) -> None:
    tensors = build_model("resnet8", 2).state_dict()
    safetensors.torch.save_file(tensors, tmp_path / "t.safetensors", {"mean": "0.1,0.2"})
    with pytest.raises(DistillError, match="the metadata is invalid"):
        load_weights(tmp_path / "t.safetensors")


def test_bfloat16_weights_load_and_have_a_digest(tmp_path: Path) -> None:
    model = build_model("resnet8", 2).bfloat16()
    save_weights(tmp_path / "b.safetensors", model, arch="resnet8", num_classes=2, mean=MEAN, std=STD)
    loaded = load_teacher(config(tmp_path / "b.safetensors", num_classes=2), CPU).model
    digests = [tensors_digest(each.state_dict()) for each in (loaded, model.float(), build_model("resnet8", 2))]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", (0.1, float("nan"), 0)),
        ("mean", (-0.1, 0.5, 0.5)),
        ("mean", (125.3, 123.0, 113.9)),
        ("std", (0.2, 0.0, 0.2)),
        ("std", (-1, 1, 1)),
        ("std", (63, 62, 66.7)),
        ("std", (float("inf"), 1, 1)),
    ],
)
def test_normalization_must_make_sense(name: str, value: tuple) -> None:
    """A mean or std that is impossible for pixel values from 0 to 1 is refused."""
    with pytest.raises(ValueError, match=f"{name} is .*, expected numbers from 0"):
        (check_mean if name == "mean" else check_std)(value)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ((0, 0, 0), (1, 1, 1)),
        ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),  # a network for pixel values from 0 to 255
        ((127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)),  # EfficientNet-Lite
        ((0.485, 0.456, 0.406), (1 / 255, 1 / 255, 1 / 255)),  # Caffe: pixel values from 0 to 255, minus a mean
    ],
)
def test_normalizations_that_people_use(teacher_path: Path, tmp_path: Path, mean: Any, std: Any) -> None:
    torch.save(load_weights(teacher_path).content, tmp_path / "t.pt")
    teacher = load_teacher(config(tmp_path / "t.pt", mean=mean, std=std), CPU)
    assert (teacher.mean, teacher.std) == (mean, std)
    assert NetworkConfig(arch="resnet8", num_classes=4, mean=mean, std=std).mean == mean


BIG_MEAN = "expected numbers from 0 to 1; if the mean is in units of 0 to 255, divide it by 255"


def test_a_mean_of_0_to_255_is_refused_wherever_one_is_given(
    run_distill: Program, teacher_path: Path, tmp_path: Path
) -> None:
    torch.save(load_weights(teacher_path).content, tmp_path / "t.pt")
    given = ["--arch", "resnet8", "--mean", "125.3,123.0,113.9", "--std", "63,62,66.7"]
    for command in (
        ["eval", "--weights", tmp_path / "t.pt", "--data", tmp_path],
        ["convert", tmp_path / "t.pt", "--out", tmp_path / "o.safetensors"],
        ["visualize", tmp_path / "t.pt"],
    ):
        assert_one_line(run_distill(*command, *given), "mean is 125.3, 123, 113.9, " + BIG_MEAN, status=2)
    settings = ["--set", "teacher.mean=[125.3,123.0,113.9]", "--set", "network.mean=[125.3,123.0,113.9]"]
    for command, setting in (("train", settings[:2]), ("train-teacher", settings[2:])):
        name = "fast-cifar" if command == "train" else "teacher-cifar10-resnet56"
        where = ["--shards" if command == "train" else "--data", tmp_path]
        assert_one_line(run_distill(command, *where, "--config", name, *setting), BIG_MEAN)
    tensors, metadata = read_safetensors(teacher_path)
    safetensors.torch.save_file(tensors, tmp_path / "big.safetensors", metadata | {"mean": "125.3,123,113.9"})
    with pytest.raises(DistillError, match=r"big\.safetensors: .* is invalid: .* mean is 125\.3, 123, 113\.9, exp"):
        load_teacher(config(tmp_path / "big.safetensors"), CPU)


def test_weights_that_are_not_finite(teacher_path: Path, tmp_path: Path) -> None:
    state = load_weights(teacher_path).content
    state["linear.bias"][1] = float("nan")
    torch.save(state, tmp_path / "t.pt")
    with pytest.raises(DistillError, match=r"linear\.bias contains a number that is not finite"):
        load_teacher(config(tmp_path / "t.pt", mean=MEAN, std=STD), CPU)
