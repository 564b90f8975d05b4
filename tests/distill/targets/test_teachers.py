"""Test teachers with their own input, several teachers, and classes in another order."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

import distill
from distill.models import build_model
from distill.targets.class_order import class_order, read_class_names
from distill.targets.live import TeacherInput, combine_logits, teacher_input
from distill.targets.teacher import Network
from distill.weights.files import save_weights
from tests.conftest import Program
from tests.distill.conftest import CONFIG, MEAN, STD, Stopping

OTHER_MEAN, OTHER_STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)
NAMES = ["ant", "bee", "cat", "dog"]
SHORT: dict[str, Any] = CONFIG | {"train": {"samples": 64, "precision": "fp32", "log_steps": 1, "compile": "off"}}


def digest(out: Path) -> tuple[list[float], str]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row], json.loads((out / "summary.json").read_text())["sha256"]


def saved(path: Path, seed: int, **metadata: Any) -> Path:
    """Save a ResNet-8 with random weights and four classes."""
    torch.manual_seed(seed)
    model = build_model("resnet8", 4).train()
    model(torch.randn(64, 3, 32, 32))
    known = {"arch": "resnet8", "num_classes": 4, "mean": MEAN, "std": STD}
    save_weights(path, model.eval(), **known | metadata)
    return path


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_a_teacher_sees_the_same_pixels_in_its_own_normalization_and_size(interpolation: Any) -> None:
    pixels = torch.rand(2, 3, 16, 16)
    (mean, std), (own_mean, own_std) = (
        [torch.tensor(values)[:, None, None] for values in pair] for pair in ((MEAN, STD), (OTHER_MEAN, OTHER_STD))
    )
    pairs: dict[str, Any] = {"student": (MEAN, STD), "teacher": (OTHER_MEAN, OTHER_STD)}
    for size in (8, 16, 24):
        seen = TeacherInput(**pairs, size=size, interpolation=interpolation)((pixels - mean) / std)
        mode, antialias = {"nearest": ("nearest-exact", False)}.get(interpolation, (interpolation, True))
        expected = pixels if size == 16 else F.interpolate(pixels, (size, size), mode=mode, antialias=antialias)
        torch.testing.assert_close(seen, (expected - own_mean) / own_std, atol=1e-5, rtol=1e-5)


def test_a_teacher_without_an_own_input_is_not_wrapped() -> None:
    network = Network(
        path=Path(), sha256="", model=nn.Identity(), arch="a", num_classes=4, mean=MEAN, std=STD, size=32
    )
    assert teacher_input(network, (MEAN, STD), 32) is None
    assert teacher_input(network, (MEAN, STD), 16) is not None
    assert teacher_input(network, (OTHER_MEAN, STD), 32) is not None


def test_the_mean_of_teachers() -> None:
    outputs = list(torch.randn(3, 5, 4))
    weights = [1.0, 2.0, 1.0]
    expected = (outputs[0] + 2 * outputs[1] + outputs[2]) / 4
    torch.testing.assert_close(combine_logits(outputs, weights, "logits"), expected)
    probabilities = [logits.softmax(dim=1) for logits in outputs]
    expected = (probabilities[0] + 2 * probabilities[1] + probabilities[2]) / 4
    torch.testing.assert_close(combine_logits(outputs, weights, "probabilities").softmax(dim=1), expected)
    assert combine_logits(outputs, weights, "losses").shape == (5, 3, 4)


def test_class_orders() -> None:
    assert class_order(["b", "A-1", "c"], ["a 1", "B"], "x") == (1, 0)
    assert class_order(["a", "b"], ["A", "b"], "x") is None
    with pytest.raises(
        distill.DistillError, match=r"x: has no class named 'bee' \(1 of 2 .*nearest are 'beee'"
    ) as error:
        class_order(["ant", "beee"], ["ant", "bee"], "x")
    assert "\n" not in str(error.value)
    with pytest.raises(distill.DistillError, match="2 classes are named 'ant'"):
        class_order(["ant", "Ant"], ["ant", "bee"], "x")


def test_files_of_class_names(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("ant\nbee\n")
    assert read_class_names(path, 2) == ("ant", "bee")
    for text, fault in (("ant\n", "has 1 line, but"), ("ant\n\n", "line 2 is empty"), ("ant\nANT", "2 classes are")):
        path.write_text(text)
        with pytest.raises(distill.DistillError, match=fault):
            read_class_names(path, 2)
    with pytest.raises(distill.DistillError, match=r"none\.txt: cannot be read"):
        read_class_names(tmp_path / "none.txt", 2)


@pytest.fixture
def train(patchset_path: Path, tmp_path: Path, eval_path: Path) -> Callable[..., distill.TrainResult]:
    def call(name: str, **given: Any) -> distill.TrainResult:
        default = {"config": SHORT, "out": tmp_path / name, "device": "cpu", "eval": eval_path}
        return distill.train(patchset_path, **default | given)

    return call


Train = Callable[..., distill.TrainResult]


def test_values_that_change_nothing_keep_a_run_bit_for_bit(train: Train, teacher_path: Path) -> None:
    plain = train("plain", teacher=teacher_path)
    more = {"teacher.size": 32, "student.mean": MEAN, "student.std": STD}
    same = train("same", teacher=teacher_path, settings=more)
    assert digest(plain.out)[0] == digest(same.out)[0]
    config = yaml.safe_load((plain.out / "config.yaml").read_text())
    assert config["teacher"].keys() == {"arch", "weights", "num_classes"} and config["student"].keys() == {"arch"}


def test_a_teacher_with_an_own_input_trains_and_resumes_exactly(
    train: Train, run_distill: Program, teacher_path: Path, stopping: Stopping
) -> None:
    settings = {"teacher.size": 48, "teacher.interpolation": "bicubic", "student.mean": OTHER_MEAN}
    given = {"teacher": teacher_path, "settings": settings | {"student.std": OTHER_STD}}
    whole = train("whole", **given)
    assert whole.metrics["teacher_top1"] is not None
    network = distill.load_network(whole.out / "student.safetensors")
    assert (network.mean, network.std) == (OTHER_MEAN, OTHER_STD)
    assert digest(whole.out)[0] != digest(train("plain", teacher=teacher_path).out)[0]
    assert run_distill("visualize", whole.out, "--steps", 1).status == 0
    assert (whole.out / "neurons-teacher.png").exists() and run_distill("report", whole.out).status == 0
    with pytest.raises(KeyboardInterrupt), stopping(2):
        train("stopped", **given)
    assert digest(train("stopped", **given, resume=True).out) == digest(whole.out)
    with pytest.raises(distill.DistillError, match=r"teacher\.size was 48, is now 40"):
        train("whole", **given | {"settings": given["settings"] | {"teacher.size": 40}}, resume=True)


def test_a_file_names_the_classes_of_a_teacher(train: Train, teacher_path: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES))
    result = train("run", teacher=teacher_path, settings={"teacher.classes": str(names)})
    assert result.metrics["classes"] == NAMES
    assert distill.load_network(result.out / "student.safetensors").classes == tuple(NAMES)


def test_a_network_is_measured_at_its_own_size(teacher_path: Path, eval_path: Path) -> None:
    network = distill.load_network(teacher_path)
    seen = []
    network.model.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))  # type: ignore[union-attr]
    for size in (None, 20):
        teacher = distill.Teacher(network.model, MEAN, STD, size=size)
        distill.evaluate(teacher, eval_path, teacher=teacher, device="cpu")
    assert set(seen) == {32, 20}


def test_stored_logits_of_a_teacher_with_an_own_size(
    run_distill: Program, patchset_path: Path, config_path: Path, teacher_path: Path, tmp_path: Path
) -> None:
    common = ["--shards", patchset_path, "--config", config_path, "--device", "cpu"]
    common += ["--set", "teacher.size=40", "--set", "student.mean=[0.4,0.4,0.4]"]
    assert run_distill("make-logits", *common, "--teacher", teacher_path, "--out", tmp_path / "logits").status == 0
    manifest = json.loads((tmp_path / "logits/labels.json").read_text())
    assert manifest["teacher"]["size"] == 40 and manifest["teacher"]["mean"] == list(MEAN)
    for name, option in (
        ("live", ["--teacher", teacher_path]),
        ("stored", ["--teacher-logits", tmp_path / "logits"]),
    ):
        result = run_distill("train", *common, *option, "--out", tmp_path / name)
        assert result.status == 0, result.err
    np.testing.assert_allclose(digest(tmp_path / "live")[0], digest(tmp_path / "stored")[0], rtol=1e-2)
    wrong = run_distill(
        *("train", *common, "--set", "teacher.size=48", "--teacher-logits", tmp_path / "logits"),
        *("--out", tmp_path / "wrong"),
    )
    assert wrong.status == 1 and "a teacher with size 40, but this run has 48" in wrong.err


@pytest.mark.parametrize("combine", ["logits", "probabilities", "losses"])
def test_several_teachers(train: Train, tmp_path: Path, stopping: Stopping, combine: str) -> None:
    first = saved(tmp_path / "a.safetensors", 1, classes=NAMES)
    second = saved(tmp_path / "b.safetensors", 2, classes=NAMES[::-1], mean=OTHER_MEAN)
    others = [{"arch": "resnet8", "weights": str(second), "weight": 2.0, "size": 24}]
    given = {"teacher": first, "settings": {"teacher.others": others, "teacher.combine": combine}}
    whole = train("whole", **given)
    assert whole.metrics["classes"] == NAMES
    with pytest.raises(KeyboardInterrupt), stopping(2):
        train("stopped", **given)
    assert digest(train("stopped", **given, resume=True).out) == digest(whole.out)
    network = distill.load_network(second)
    own = distill.Teacher(network.model, network.mean, network.std, network.classes, size=24, weight=2)
    listed = train("listed", teacher=[first, own], settings={"teacher.combine": combine})
    assert digest(listed.out)[0] == digest(whole.out)[0]
    config = (listed.out / "config.yaml").read_text()
    assert "others:" in config and "weight: 2.0" in config
    with pytest.raises(distill.DistillError, match="teacher's file"):
        changed = {"teacher.others": [others[0] | {"weight": 1.0}], "teacher.combine": combine}
        train("whole", **given | {"settings": changed}, resume=True)


def test_what_several_teachers_cannot_do(train: Train, tmp_path: Path, teacher_path: Path) -> None:
    named = saved(tmp_path / "a.safetensors", 1, classes=NAMES)
    wrong = saved(tmp_path / "b.safetensors", 2, classes=["ant", "bee", "cat", "dig"])
    others = [{"arch": "resnet8", "weights": str(wrong)}]
    for settings, fault in (
        ({"teacher.others": others}, r"b\.safetensors: has no class named 'dog' .* 'dig'"),
        ({"teacher.combine": "logits"}, "combine and weight are of several teachers"),
        ({"teacher.others": [{"arch": "resnet8"}]}, r"teacher\.others\.0\.weights is not set"),
        ({"teacher.size": 4}, r"teacher\.size"),
    ):
        with pytest.raises(distill.DistillError, match=fault) as error:
            train("out", teacher=named, settings=settings)
        assert "\n" not in str(error.value)
    with pytest.raises(distill.DistillError, match="the list is empty"):
        train("out", teacher=[])
    for bad in ({"size": 3}, {"interpolation": "cubic"}, {"weight": 0}):
        with pytest.raises(distill.DistillError, match="correct it"):
            distill.Teacher(nn.Identity(), MEAN, STD, **bad)


def test_the_loss_of_each_teacher_is_not_stored(
    run_distill: Program, patchset_path: Path, config_path: Path, teacher_path: Path, tmp_path: Path
) -> None:
    other = f"teacher.others=[{{arch: resnet8, weights: {teacher_path}}}]"
    command = ["make-logits", "--shards", patchset_path, "--config", config_path, "--teacher", teacher_path]
    result = run_distill(*command, "--set", other, "--set", "teacher.combine=losses", "--out", tmp_path / "logits")
    assert result.status == 1 and "teacher.combine losses" in result.err and result.err.count("\n") == 1


def test_eval_matches_the_classes_of_a_teacher_by_name(run_distill: Program, eval_path: Path, tmp_path: Path) -> None:
    first = saved(tmp_path / "a.safetensors", 1, classes=NAMES)
    network = distill.load_network(first)
    order = [3, 2, 1, 0]
    with torch.no_grad():
        network.model.linear.weight.copy_(network.model.linear.weight[order].clone())  # type: ignore[union-attr]
        network.model.linear.bias.copy_(network.model.linear.bias[order].clone())  # type: ignore[union-attr]
    known: dict[str, Any] = {"arch": "resnet8", "num_classes": 4, "mean": MEAN, "std": STD, "classes": NAMES[::-1]}
    save_weights(tmp_path / "b.safetensors", network.model, **known)
    result = run_distill("eval", "--weights", first, "--data", eval_path, "--teacher", tmp_path / "b.safetensors")
    assert result.status == 0 and "agreement 100.00 %" in result.out, result
