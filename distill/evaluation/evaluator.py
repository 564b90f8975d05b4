"""Measure networks on labelled images, and compare a student with its teacher."""

import dataclasses
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distill.data.classes import match_classes
from distill.data.labelled import LabelledImages, load_labelled
from distill.errors import DistillError
from distill.evaluation.metrics import agreement, confusion, kl_to, logits_of, per_class_top1, top_k
from distill.runtime.context import RunContext
from distill.runtime.logs import silenced
from distill.weights.files import Triple
from manifests import PatchSet
from manifests.format.digest import DIGEST_BYTES
from manifests.format.schema import PACKED
from manifests.format.shard_table import read_pixel_digests
from manifests.support.counts import counted

MAX_CONFUSION_CLASSES = 200
"""Confusion matrices are kept up to this number of classes; their size grows with its square."""
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluation data for networks with one normalization; the network's figures are named ``prefix`` + metric.

    ``teacher_logits`` is (N, classes), or None without a teacher.
    """

    data: LabelledImages
    normalization: tuple[Triple, Triple]
    teacher_logits: Tensor | None
    context: RunContext
    prefix: str

    @property
    def teacher_top1(self) -> float | None:
        """In percent; None without a teacher."""
        return None if self.teacher_logits is None else top_k(self.teacher_logits, self.data.labels, 1)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return top-1, top-5 and agreement in percent, and the KL divergence from the teacher in nats."""
        return self._figures(self._logits(network))

    def evaluate(self, network: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the figures of a run's result, by name, and its confusions, both as JSON values.

        The figures are those of ``measure``, those of the teacher, and top-1 in percent of each class. The confusions
        have ``names`` ("0", "1", … if unknown) and, for at most 200 classes, matrices of image counts: entry [i][j]
        of ``label_network`` counts the images of class i that the network predicts as j. ``label_teacher`` is the
        same for the teacher, ``teacher_network`` has the teacher's prediction in rows; None without a teacher.
        """
        logits, labels = self._logits(network), self.data.labels
        result: dict[str, Any] = self._figures(logits)
        result["eval_images"] = len(labels)
        result["eval_sha256"] = self.data.sha256
        result[f"{self.prefix}per_class"] = per_class_top1(logits, labels)
        if self.teacher_logits is not None:
            result["teacher_top1"] = self.teacher_top1
            result["teacher_top5"] = top_k(self.teacher_logits, labels, 5)
            result["teacher_per_class"] = per_class_top1(self.teacher_logits, labels)
        return result, self._confusions(logits)

    def _confusions(self, logits: Tensor) -> dict[str, Any]:
        count = logits.shape[1]
        names = self.data.names if len(self.data.names) == count else ()
        result: dict[str, Any] = {"names": list(names or map(str, range(count)))}
        result |= dict.fromkeys(("label_network", "label_teacher", "teacher_network"))
        if count > MAX_CONFUSION_CLASSES:
            return result
        predicted = logits.argmax(dim=1)
        result["label_network"] = confusion(self.data.labels, predicted, count)
        if self.teacher_logits is not None:
            teacher_predicted = self.teacher_logits.argmax(dim=1)
            result["label_teacher"] = confusion(self.data.labels, teacher_predicted, count)
            result["teacher_network"] = confusion(teacher_predicted, predicted, count)
        return result

    def _logits(self, network: nn.Module) -> Tensor:
        return logits_of(network, self.data, *self.normalization, self.context)

    def _figures(self, logits: Tensor) -> dict[str, float]:
        result = {
            f"{self.prefix}top1": top_k(logits, self.data.labels, 1),
            f"{self.prefix}top5": top_k(logits, self.data.labels, 5),
        }
        if self.teacher_logits is not None:
            result["agreement"] = agreement(logits, self.teacher_logits)
            result["kl_to_teacher"] = kl_to(self.teacher_logits, logits)
        return result


def load_evaluation_data(path: Path, size: int, num_classes: int, classes: Sequence[str]) -> LabelledImages:
    """Read labelled images at ``size`` px, with the labels of a network whose class names are ``classes``."""
    data = match_classes(load_labelled(path, size), num_classes, classes, path)
    logger.info(f"evaluation data: {data}")
    return data


def evaluation_digest(path: Path | None, size: int) -> str | None:
    """Return the SHA-256 of labelled images and their labels, and log nothing; None without a ``path``."""
    if path is None:
        return None
    with silenced():
        return load_labelled(path, size).sha256


def warn_if_trained_on(what: str, data_sha256: str | None, data: LabelledImages) -> None:
    """Log if evaluation data is the training data, with the digest ``data_sha256``, of the network ``what``."""
    if data_sha256 == data.sha256:
        logger.info(
            f"{data.where}: these are the images that {what} was trained on: its figures say nothing of others"
        )


def require_unseen(seen: Collection[bytes], data: LabelledImages, where: str) -> None:
    """Compare evaluation images with training images by ``seen``, the SHA-256 of the latter's pixels.

    Logs a line if some are the same.
    """
    common = sum(digest in seen for digest in data.digests)
    if not common:
        return
    found = f"{data.where}: {common} of {counted(len(data.digests), 'evaluation image')}"
    if common == len(data.digests):
        raise DistillError(
            f"{found} are training images of {where}, so that the figures would say nothing; "
            "give images that the network does not learn from"
        )
    logger.info(
        f"{found} are also training images of {where}: figures are too good by what the network remembers of them"
    )


def packed_digests(patchset: PatchSet) -> frozenset[bytes]:
    """Return the SHA-256 of the pixels of each patch of a set that was packed from images; none of other sets."""
    if patchset.manifest.recipe.get("name") != PACKED:
        return frozenset()
    tables = (read_pixel_digests(patchset.folder / shard.parquet.name, shard.n) for shard in patchset.manifest.shards)
    return frozenset(raw[at : at + DIGEST_BYTES] for raw in tables for at in range(0, len(raw), DIGEST_BYTES))
