"""Evaluation data as a judge of networks, and of how a student differs from its teacher."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.data.labelled import LabelledImages, load_labelled
from distill.errors import DistillError, Say, ignore
from distill.evaluation.metrics import agreement, confusion, kl_to, logits_of, per_class_top1, top_k
from distill.runtime.distributed import ALONE, Ranks
from distill.targets.teacher import TeacherConfig
from distill.weights.files import Triple
from manifests.support.console import shell_word

Measure = Callable[[nn.Module], dict[str, float]]
"""A network in, what it is worth out, by name."""


MOST_CLASSES = 200
"""Of which confusions are kept: they grow with the square."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run's result is worth: ``summary`` by name, and ``classes``, how classes are confused, as JSON values.

    ``classes`` has their ``names`` ("0", "1", … where unknown) and, for at most 200 of them, counts of images: row i,
    column j of ``label_network`` are those of class i that the network takes for j; ``label_teacher`` alike;
    ``teacher_network`` has the teacher's class in rows. The last two are None without a teacher.
    """

    summary: dict[str, Any]
    classes: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Evaluation data for networks whose input is normalised alike; results are named ``prefix`` and what they are.

    ``teacher_logits`` is (N, classes), or None where there is no teacher to compare with.
    """

    data: LabelledImages
    mean: Triple
    std: Triple
    teacher_logits: Tensor | None
    device: torch.device
    ranks: Ranks = ALONE
    prefix: str = "student_"

    @property
    def teacher_top1(self) -> float | None:
        """Percent."""
        return None if self.teacher_logits is None else top_k(self.teacher_logits, self.data.labels, 1)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Top-1, top-5 and agreement in percent, and the KL divergence from the teacher in nats."""
        return self._compare(self._logits(network))

    def judge(self, network: nn.Module) -> Verdict:
        """What ``measure`` says, the same of the teacher, top-1 in percent class by class, and confusions."""
        logits, labels = self._logits(network), self.data.labels
        result: dict[str, Any] = self._compare(logits)
        result["eval_images"] = len(labels)
        result["eval_sha256"] = self.data.sha256
        result[f"{self.prefix}per_class"] = per_class_top1(logits, labels)
        if self.teacher_logits is not None:
            result["teacher_top1"] = self.teacher_top1
            result["teacher_top5"] = top_k(self.teacher_logits, labels, 5)
            result["teacher_per_class"] = per_class_top1(self.teacher_logits, labels)
        return Verdict(summary=result, classes=self._classes(logits))

    def _classes(self, logits: Tensor) -> dict[str, Any]:
        count = logits.shape[1]
        known = self.data.names if len(self.data.names) == count else ()
        result: dict[str, Any] = {"names": list(known or map(str, range(count)))}
        result |= dict.fromkeys(("label_network", "label_teacher", "teacher_network"))
        if count > MOST_CLASSES:
            return result
        taken = logits.argmax(dim=1)
        result["label_network"] = confusion(self.data.labels, taken, count)
        if self.teacher_logits is not None:
            teachers = self.teacher_logits.argmax(dim=1)
            result["label_teacher"] = confusion(self.data.labels, teachers, count)
            result["teacher_network"] = confusion(teachers, taken, count)
        return result

    def _logits(self, network: nn.Module) -> Tensor:
        return logits_of(network, self.data, self.mean, self.std, self.device, self.ranks)

    def _compare(self, logits: Tensor) -> dict[str, float]:
        result = {
            f"{self.prefix}top1": top_k(logits, self.data.labels, 1),
            f"{self.prefix}top5": top_k(logits, self.data.labels, 5),
        }
        if self.teacher_logits is not None:
            result["agreement"] = agreement(logits, self.teacher_logits)
            result["kl_to_teacher"] = kl_to(self.teacher_logits, logits)
        return result


def require_top1(judge: Judge, config: TeacherConfig) -> None:
    """Hold the teacher against ``config.min_top1``.

    Raises:
        DistillError: it is worse than it should be.
    """
    measured = judge.teacher_top1
    if config.min_top1 is not None and measured is not None and measured < config.min_top1:
        raise DistillError(
            f"{config.weights}: top-1 is {measured:.2f} %, teacher.min_top1 is {config.min_top1} %; "
            "check teacher.mean, teacher.std and that the evaluation data has the teacher's classes"
        )


def tell_unmeasured(
    summary: dict[str, Any], prefix: str, weights: Path, data: Path | None, size: int, say: Say
) -> None:
    """Say where the figures of a run that has ended are not of ``data``, read at ``size`` px as it would read it.

    Raises:
        DistillError: the data cannot be read.
    """
    if data is None:
        return
    command = f"distill eval --weights {shell_word(str(weights))} --data {shell_word(str(data))}"
    if summary.get(f"{prefix}top1") is None:
        say(f"it was not evaluated: {command}")
    elif summary.get("eval_sha256") not in (None, load_labelled(data, size, say=ignore).sha256):
        say(f"its figures are of other evaluation data than {data}; of this: {command}")
