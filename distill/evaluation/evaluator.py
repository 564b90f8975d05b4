"""Measure networks on labelled images, and compare a student with its teacher. Percentages are 0 to 100."""

import dataclasses
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.augment import normalize
from distill.data.classes import match_classes
from distill.data.datasets import MapDataset
from distill.data.labelled import LabelledImages, Size, load_labelled
from distill.errors import DistillError
from distill.runtime.distributed import RunContext
from distill.weights.files import Triple
from manifests import PatchSet
from manifests.format.digest import DIGEST_BYTES
from manifests.format.schema import PACKED
from manifests.format.shard_table import read_pixel_digests
from manifests.support.console import progress_bar
from manifests.support.counts import counted

MAX_CONFUSION_CLASSES = 200
"""Networks with more classes have no confusion matrices, because a matrix grows with the square of the classes."""
BATCH, MAX_BATCH_PIXELS = 500, 500 * 64 * 64  # images of a batch, of larger images fewer, to save memory
MAX_KL_LOGITS = 1 << 22  # logits of a network that are converted to float64 at once, to save memory
Dtype = torch.dtype | None
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Measures networks on labelled images, and compares the networks with a teacher if there is one."""

    data: LabelledImages
    normalization: tuple[Triple, Triple]  # mean and std of RGB in [0, 1]
    teacher_logits: Tensor | None  # (N, classes)
    context: RunContext
    prefix: str  # precedes the names of the network's metrics, such as top1

    @property
    def teacher_top1(self) -> float | None:
        """Top-1 of the teacher in percent; None without a teacher."""
        return None if self.teacher_logits is None else top_k(self.teacher_logits, self.data.labels, 1)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return top-1, top-5 and agreement with the teacher in percent, and KL(teacher ‖ network) in nats."""
        return self._metrics(logits_of(network, self.data, *self.normalization, self.context))

    def evaluate(self, network: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metrics and the confusions of a network, two dicts of JSON values.

        The metrics are those of ``measure``, those of the teacher, and top-1 in percent of each class. The confusions
        are the ``names`` of the classes ("0", "1", … if unknown) and, for at most 200 classes, matrices of image
        counts. Entry [i][j] of ``label_network`` counts images of class i that the network predicts as class j.
        ``label_teacher`` counts predictions of the teacher. Entry [i][j] of ``teacher_network`` counts images that
        the teacher predicts as i and the network as j. Without a teacher, these two matrices are None.
        """
        logits, labels = logits_of(network, self.data, *self.normalization, self.context), self.data.labels
        result: dict[str, Any] = self._metrics(logits)
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

    def _metrics(self, logits: Tensor) -> dict[str, float]:
        result = {f"{self.prefix}top{k}": top_k(logits, self.data.labels, k) for k in (1, 5)}
        if self.teacher_logits is not None:
            result["agreement"] = agreement(logits, self.teacher_logits)
            result["kl_to_teacher"] = kl_to(self.teacher_logits, logits)
        return result


def load_evaluation_data(
    source: Path | MapDataset | LabelledImages, size: Size, num_classes: int, classes: Sequence[str]
) -> LabelledImages:
    """Read labelled images at ``size`` px (None: as stored). Match the labels with a network's names ``classes``."""
    data = source if isinstance(source, LabelledImages) else load_labelled(source, size)
    data = match_classes(data, num_classes, classes, source if isinstance(source, Path) else data.where)
    logger.info(f"evaluation data: {data}")
    return data


def warn_if_trained_on(what: str, data_sha256: str | None, data: LabelledImages) -> None:
    """Log a warning if the network ``what`` was trained on ``data``. ``data_sha256`` identifies the training data."""
    if data_sha256 == data.sha256:
        logger.info(f"{data.where}: {what} was trained on these images, so the accuracy on other images is unknown")


def require_unseen(seen: Collection[bytes], data: LabelledImages, where: str) -> None:
    """Raise DistillError if all evaluation images are also training images. Log a warning if some are.

    ``seen`` contains the SHA-256 of the pixels of each training image. ``where`` names the training data in messages.
    """
    common = sum(digest in seen for digest in data.digests)
    images = counted(len(data.digests), "evaluation image")
    found = f"{data.where}: {common} of {images} are also training images in {where}"
    if common == len(data.digests):
        raise DistillError(f"{found}; choose evaluation images that are not training images")
    if common:
        logger.info(f"{found}, so the measured accuracy is too high")


def packed_digests(patchset: PatchSet) -> frozenset[bytes]:
    """Return the SHA-256 of each patch's pixels if ``patchgen pack`` created the patch set, else an empty set."""
    if patchset.manifest.recipe.get("name") != PACKED:
        return frozenset()
    tables = (read_pixel_digests(patchset.folder / shard.parquet.name, shard.n) for shard in patchset.manifest.shards)
    return frozenset(raw[at : at + DIGEST_BYTES] for raw in tables for at in range(0, len(raw), DIGEST_BYTES))


@torch.inference_mode()
def logits_of(
    model: nn.Module, data: LabelledImages, mean: Triple, std: Triple, context: RunContext, dtype: Dtype = None
) -> Tensor:
    """Return the logits of ``model`` in eval mode for every image: float32 (N, classes) on the CPU.

    ``dtype`` is the dtype of the weights; None means float32. Training or eval mode is restored. Each rank computes
    some of the batches. The batches do not depend on the number of ranks.
    """
    was_training = model.training
    model.eval()
    outputs, (height, width) = {}, data.shape
    rows = max(1, min(BATCH, MAX_BATCH_PIXELS // (height * width)))
    count = -(-len(data.labels) // rows)
    own = range(context.ranks.rank, count, context.ranks.world_size)
    with progress_bar("evaluation images", len(data.labels)) as update:
        for number, images in data.batches(rows, own):
            x = normalize(images.to(context.device), mean, std)
            x = x if dtype is None else x.to(dtype)
            outputs[number] = model(x).float().cpu()
            update(number * rows + len(images))
    model.train(was_training)
    logits = context.ranks.gather(outputs, count)
    if not bool(torch.isfinite(logits).all()):
        range_error = "float16 cannot represent them; set train.precision fp32"
        reason = range_error if dtype == torch.float16 else "the weights are corrupt; choose another weight file"
        raise DistillError(f"the logits on the evaluation data are not finite: {reason}")
    return logits


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Return the percentage of images whose label is among the ``k`` largest logits."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices  # N k
    return _percent((best == labels[:, None]).any(dim=1))


def per_class_top1(logits: Tensor, labels: Tensor) -> list[float | None]:
    """Return top-1 in percent for each class; None for a class without images."""
    correct = logits.argmax(dim=1) == labels
    of_class = [labels == number for number in range(logits.shape[1])]
    return [_percent(correct[mask]) if bool(mask.any()) else None for mask in of_class]


def agreement(first: Tensor, second: Tensor) -> float:
    """Return the percentage of images for which the logits of two networks, (N, classes), predict the same class."""
    return _percent(first.argmax(dim=1) == second.argmax(dim=1))


def confusion(first: Tensor, second: Tensor, num_classes: int) -> list[list[int]]:
    """Return a matrix: [i][j] is the number of images with class i in ``first``, int64 (N,), and j in ``second``."""
    counts = torch.bincount(first * num_classes + second, minlength=num_classes**2)
    return list(counts.reshape(num_classes, num_classes).tolist())


def kl_to(teacher: Tensor, student: Tensor) -> float:
    """Return KL(teacher ‖ student) of softmax(logits), both (N, classes), in nats, averaged over the images."""
    rows, total = max(1, MAX_KL_LOGITS // teacher.shape[1]), 0.0
    for pair in zip(teacher.split(rows), student.split(rows), strict=True):
        log_p, log_q = (F.log_softmax(logits.double(), dim=1) for logits in pair)
        total += float(F.kl_div(log_q, log_p, reduction="sum", log_target=True))
    return total / len(teacher)


def _percent(right: Tensor) -> float:
    return 100 * int(right.sum()) / len(right)
