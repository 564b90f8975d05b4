"""Test modules of the user that cannot be trained or stored, and those that fail late."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import distill
from manifests.support.user_code import failed_in
from tests.distill.conftest import MEAN, STD
from tests.distill.models.test_other_networks import SHORT, refused


class Failing(nn.Module):
    """Fails for batches of ``rows`` images, as the code of a user may do first in a step or in an evaluation."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.linear = rows, nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == self.rows:
            raise KeyError("the batch")
        logits: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits.detach() if self.rows < 0 else logits


@pytest.mark.parametrize("rows", [16, 20])
def test_an_exception_in_a_step_or_in_an_evaluation_names_the_code(
    rows: int, patchset_path: Path, teacher_path: Path, eval_path: Path, tmp_path: Path
) -> None:
    student, fault = Failing(rows), "(your code) raised KeyError: 'the batch'"
    given: dict[str, Any] = {"config": SHORT, "teacher": teacher_path, "eval": eval_path, "device": "cpu"}
    with pytest.raises(distill.DistillError) as error:
        distill.train(patchset_path, student=student, out=tmp_path / "run", **given)
    assert fault in str(error.value) and "in forward" in error.value.user_traceback
    if rows == 20:
        with pytest.raises(distill.DistillError, match=r"Failing\.forward \(your code\) raised"):
            distill.evaluate(distill.Teacher(student, MEAN, STD), eval_path, device="cpu")


def with_buffer(value: torch.Tensor) -> nn.Module:
    module = Failing(0)
    module.register_buffer("mask", value)
    return module


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        (Failing(-1), "its logits have no gradient"),
        (with_buffer(torch.tensor([0.0, -torch.inf])), "mask contains a number that is not finite"),
        (
            with_buffer(torch.eye(2).to_sparse()),
            "'mask', which is not a plain tensor, so no weight file can store it",
        ),
        (torch.jit.trace(Failing(0).eval(), torch.zeros(2, 3, 8, 8)), "is a program of TorchScript"),
    ],
)
def test_a_student_that_cannot_be_trained_or_stored(
    module: nn.Module, fault: str, patchset_path: Path, teacher_path: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"config": SHORT, "teacher": teacher_path, "out": tmp_path / "run", "device": "cpu"}
    refused(lambda: distill.train(patchset_path, student=module, **given), fault)


@pytest.mark.parametrize(
    ("group", "fault"),
    [
        ({"size": 40}, r"teacher.size: is 40 in the config, which has no effect.*distill.Teacher\(…, size=…\)"),
        ({"classes": "names.txt"}, "teacher.classes: is names.txt in the config"),
        ({"others": [{"arch": "resnet8"}]}, "teacher.others: is .*give a list of teachers"),
        ({"num_classes": "4", "arch_arguments": {"a": 1}}, ""),
    ],
)
def test_the_config_says_nothing_else_about_a_teacher_that_is_an_object(
    group: dict[str, Any], fault: str, patchset_path: Path, tmp_path: Path
) -> None:
    config = SHORT | {"teacher": group}
    teacher = distill.Teacher(Failing(0), MEAN, STD)
    given: dict[str, Any] = {"config": config, "teacher": teacher, "out": tmp_path / "run", "device": "cpu"}
    if fault:
        with pytest.raises(distill.DistillError, match=fault):
            distill.train(patchset_path, **given)
    else:
        assert distill.train(patchset_path, **given).metrics["teacher_arch"].endswith(":Failing")


def test_arguments_of_other_types_are_one_line(teacher_path: Path, eval_path: Path) -> None:
    wrong: Any
    for wrong in (None, "abcd", [1, 2, 3, 4], ["a" * 1001, "b", "c", "d"]):
        refused(lambda wrong=wrong: distill.Teacher(Failing(0), MEAN, STD, classes=wrong), "classes has")  # type: ignore[misc]
    wrong = 5
    refused(lambda: distill.load_network(teacher_path, arch=wrong), "arch: is int, expected the name of a network")
    wrong = Failing(0)
    refused(lambda: distill.evaluate(wrong, eval_path), "network: is Failing", "distill.Teacher(module, mean, std)")
    refused(lambda: distill.load_network(wrong), "is a Failing, expected a path; give a text")


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("/home/someone/study.py", "study:step"),
        ("/home/someone/.local/lib/python3.11/site-packages/torch/nn.py", ""),
        ("/usr/lib/python3/dist-packages/scipy/io.py", ""),
    ],
)
def test_only_frames_outside_of_installed_packages_are_code_of_the_user(file: str, named: str) -> None:
    scope: dict[str, Any] = {"__name__": "study"}
    exec(compile("def step():\n    raise KeyError(1)\n", file, "exec"), scope)  # noqa: S102 - a frame of that file
    with pytest.raises(KeyError) as error:
        scope["step"]()
    frames = error.value.__traceback__
    assert frames is not None
    assert failed_in(error.value.with_traceback(frames.tb_next)) == named
