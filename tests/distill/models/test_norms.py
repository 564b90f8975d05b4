"""Test the settings of batch norms: training uses them, and the weight file records them.

Every command that reads the weight file computes with the recorded eps.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from distill.errors import DistillError
from distill.models import build_model, set_batch_norms
from distill.targets.teacher import TeacherConfig, load_teacher
from distill.weights.files import load_weights, save_weights
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import MEAN, STD, TEACHER, Stopping
from tests.helpers.running import same

CPU = torch.device("cpu")
EPS = ["--set", "student.bn_eps=0.3"]


def norms(model: nn.Module) -> set[tuple[float, float]]:
    return {(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.parametrize("arch", ["resnet8", "wrn-10-1", "vgg11-bn", "torchvision/mobilenet_v3_small"])
def test_all_batch_norms_are_set(arch: str) -> None:
    model = build_model(arch, 4)
    before = norms(model)
    set_batch_norms(model)
    assert norms(model) == before
    set_batch_norms(model, eps=0.25)
    assert norms(model) == {(0.25, momentum) for _, momentum in before}
    set_batch_norms(model, momentum=0.5)
    assert norms(model) == {(0.25, 0.5)}


def test_a_file_is_measured_with_the_eps_it_was_trained_with(
    run_distill: Program, arguments: list[Any], eval_path: Path, tmp_path: Path, teacher_path: Path
) -> None:
    run, file = tmp_path / "run", tmp_path / "run" / "student.safetensors"
    assert run_distill(*arguments, run, *EPS).status == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["bn_eps"] == load_weights(file).bn_eps == 0.3

    def kl(weights: Path) -> float:
        command = ["eval", "--weights", weights, "--data", eval_path, "--teacher", teacher_path, "--json"]
        return float(json.loads(run_distill(*command).out)["kl_to_teacher"])

    assert kl(file) == pytest.approx(summary["kl_to_teacher"], rel=1e-5)
    assert run_distill("convert", file, "--out", tmp_path / "copy.safetensors").status == 0
    assert (tmp_path / "copy.safetensors").read_bytes() == file.read_bytes()
    teacher = load_teacher(TeacherConfig(arch="resnet8", num_classes=4, weights=file), CPU)
    assert {eps for eps, _ in norms(teacher.model)} == {0.3}
    save_weights(tmp_path / "silent.safetensors", teacher.model, arch="resnet8", num_classes=4, mean=MEAN, std=STD)
    assert kl(tmp_path / "silent.safetensors") != pytest.approx(summary["kl_to_teacher"], rel=1e-2)


def test_a_run_without_it_leaves_the_file_as_it_was(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    """Without ``bn_eps``, the weight file and the summary have no such entry."""
    assert run_distill(*arguments, tmp_path / "run").status == 0
    assert load_weights(tmp_path / "run" / "student.safetensors").bn_eps is None
    assert "bn_eps" not in json.loads((tmp_path / "run" / "summary.json").read_text())


def test_momentum_and_eps_move_the_student(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    results = {
        name: run_distill(*arguments, tmp_path / name, "--set", f"student.{key}")
        for name, key in (("plain", "bn_eps=1e-5"), ("eps", "bn_eps=0.3"), ("slow", "bn_momentum=0.01"))
    }
    stale = "89% of the initial statistics remain after 12 steps, so evaluation"
    assert [stale in result.out for result in results.values()] == [False, False, True]
    plain, eps, slow = (load_weights(tmp_path / n / "student.safetensors").content for n in ("plain", "eps", "slow"))
    assert torch.equal(plain["conv1.weight"], slow["conv1.weight"])  # training uses the statistics of each batch
    assert not torch.equal(plain["conv1.weight"], eps["conv1.weight"])
    moved, less = (state["bn1.running_mean"].abs().mean() for state in (plain, slow))
    assert 0 < less < 0.5 * moved


def test_a_stopped_run_with_them_resumes_exactly(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping
) -> None:
    sets = [*EPS, "--set", "student.bn_momentum=0.05"]
    assert run_distill(*arguments, tmp_path / "whole", *sets).status == 0
    with stopping(5):
        assert run_distill(*arguments, tmp_path / "cut", *sets).status == 130
    other = run_distill(*arguments, tmp_path / "cut", "--set", "student.bn_eps=0.2", "--resume")
    assert_one_line(other, "other values: student.bn_eps was ", ", is now 0.2;")
    assert run_distill(*arguments, tmp_path / "cut", *sets, "--resume").status == 0
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_taught_network_has_them_too(run_distill: Program, eval_path: Path, tmp_path: Path) -> None:
    """``train-teacher`` has the same settings."""
    config = tmp_path / "teacher.json"
    config.write_text(json.dumps(TEACHER | {"train": {"samples": 32}}))
    command = ["train-teacher", "--data", eval_path, "--config", config, "--device", "cpu", "--out"]
    assert run_distill(*command, tmp_path / "run", "--set", "network.bn_eps=0.01").status == 0
    assert load_weights(tmp_path / "run" / "teacher.safetensors").bn_eps == 0.01
    bare = ["--set", "network.arch=torchvision/squeezenet1_1", "--set", "network.bn_momentum=0.1"]
    assert_one_line(run_distill(*command, tmp_path / "bare", *bare), "has no batch norm")


def test_a_network_without_batch_norms(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    sets = ["--set", "student.arch=torchvision/squeezenet1_1", *EPS]
    assert_one_line(run_distill(*arguments, tmp_path / "run", *sets), "has no batch norm", "omit them")
    model = build_model("torchvision/squeezenet1_1", 4)
    file = tmp_path / "t.safetensors"
    described = {"arch": "torchvision/squeezenet1_1", "num_classes": 4, "mean": MEAN, "std": STD}
    save_weights(file, model, **described, bn_eps=0.1)
    with pytest.raises(
        DistillError, match=r"t\.safetensors: .* declares bn_eps 0\.1, but the network .* has no batch norm"
    ):
        load_teacher(TeacherConfig(arch="torchvision/squeezenet1_1", num_classes=4, weights=file), CPU)


@pytest.mark.parametrize("eps", [0.0, -1e-5, 2.0, float("nan"), float("inf")])
def test_a_file_with_an_impossible_eps(eps: float, tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    safetensors.torch.save_file(build_model("resnet8", 4).state_dict(), file, {"arch": "resnet8", "bn_eps": str(eps)})
    with pytest.raises(DistillError, match=r"metadata is invalid: bn_eps is .*: Input should be (greater|less) than"):
        load_weights(file)
