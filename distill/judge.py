"""Evaluation data as a judge: it measures the teacher first, then the student against it."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import DistillError
from distill.evaldata import LabelledImages, load_labelled
from distill.evaluate import agreement, logits_of, top1
from distill.models import build_model
from distill.teacher import Teacher, TeacherConfig, normalisation
from distill.weights import Triple, count_classes, fill_model, load_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Evaluation data, and what the teacher makes of it: ``teacher_logits`` is (N, classes)."""

    data: LabelledImages
    teacher: Teacher
    teacher_logits: Tensor
    device: torch.device

    @property
    def teacher_top1(self) -> float:
        """Percent."""
        return top1(self.teacher_logits, self.data.labels)

    def measure(self, student: nn.Module) -> dict[str, float]:
        """Top-1 of student and teacher and their agreement, in percent."""
        logits = logits_of(student, self.data, self.teacher.mean, self.teacher.std, self.device)
        return {
            "student_top1": top1(logits, self.data.labels),
            "teacher_top1": self.teacher_top1,
            "agreement": agreement(logits, self.teacher_logits),
        }


def make_judge(path: Path, config: TeacherConfig, teacher: Teacher, size: int, device: torch.device) -> Judge:
    """Load evaluation data, measure the teacher on it, and hold it against ``config.min_top1``.

    Raises:
        DistillError: the data is wrong, or the teacher is worse than it should be.
    """
    data = load_labelled(path, size)
    data.require_classes(config.num_classes, path)
    logits = logits_of(teacher.model, data, teacher.mean, teacher.std, device)
    judge = Judge(data=data, teacher=teacher, teacher_logits=logits, device=device)
    if config.min_top1 is not None and judge.teacher_top1 < config.min_top1:
        raise DistillError(
            f"{config.weights}: top-1 is {judge.teacher_top1:.2f} %, teacher.min_top1 is {config.min_top1} %; "
            "check teacher.mean, teacher.std and that the evaluation data has the teacher's classes"
        )
    return judge


def evaluate_weights(
    path: Path,
    arch: str | None,
    data: Path,
    *,
    mean: Triple | None,
    std: Triple | None,
    size: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """Top-1 in percent of the network in a weight file; what the file says of itself need not be given.

    Raises:
        DistillError: the file, the network's name or the data is wrong.
    """
    weights = load_weights(path)
    arch = arch or weights.arch
    if arch is None:
        raise DistillError(f"{path}: does not say which network it is; give --arch")
    num_classes = weights.num_classes or count_classes(weights)
    model = build_model(arch, num_classes)
    fill_model(model, weights, arch=arch, num_classes=num_classes)
    mean, std = normalisation(weights, mean, std, prefix="--")
    labelled = load_labelled(data, size)
    labelled.require_classes(num_classes, data)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    logits = logits_of(model, labelled, mean, std, device)
    return {"arch": arch, "top1": top1(logits, labelled.labels), "images": len(labelled.labels)}
