"""``distill eval``: measure the network of a weight file on labelled images, and compare it with a teacher."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.data.classes import match_classes
from distill.data.labelled import LabelledImages, load_labelled
from distill.errors import DistillError
from distill.evaluation.metrics import agreement, kl_to, logits_of, per_class_top1, top_k
from distill.models import require_size
from distill.runtime.context import RunContext
from distill.targets.teacher import normalization
from distill.weights.files import Triple, load_weights
from distill.weights.load import build_filled, count_classes
from manifests.support.counts import counted

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network from a weight file, and the normalization of its input.

    ``classes`` are its class names and ``data_sha256`` the digest of the labelled images it was trained on, if the
    file has them; ``bn_eps`` is that of its batch norms, if not the architecture's default.
    """

    path: Path
    model: nn.Module
    arch: str
    num_classes: int
    mean: Triple
    std: Triple
    classes: tuple[str, ...] = ()
    data_sha256: str | None = None
    bn_eps: float | None = None

    def logits(self, data: LabelledImages, device: torch.device) -> Tensor:
        """Compute the logits of all images: float32 (N, classes), on the CPU."""
        return logits_of(self.model, data, self.mean, self.std, RunContext(device=device))


def load_network(
    path: Path,
    arch: str | None,
    mean: Triple | None,
    std: Triple | None,
    device: torch.device,
    bn_eps: float | None = None,
) -> Network:
    """Load the network of a weight file; arguments may be None where the file has the value."""
    weights = load_weights(path)
    if bn_eps is not None:
        if weights.bn_eps not in (None, bn_eps):
            raise DistillError(f"{path}: says its bn_eps is {weights.bn_eps}, but --bn-eps is {bn_eps}; leave it out")
        weights = dataclasses.replace(weights, bn_eps=bn_eps)
    arch = arch or weights.arch
    if arch is None:
        raise DistillError(f"{path}: does not say which network it is; give --arch")
    num_classes = weights.num_classes or count_classes(weights, arch)
    model = build_filled(weights, arch=arch, num_classes=num_classes)
    mean, std = normalization(weights, mean, std, prefix="--")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(
        path=path,
        model=model,
        arch=arch,
        num_classes=num_classes,
        mean=mean,
        std=std,
        classes=weights.classes,
        data_sha256=weights.data_sha256,
        bn_eps=weights.bn_eps,
    )


def evaluate(
    network: Network, data: Path, size: int | None, teacher: Network | None, device: torch.device
) -> dict[str, Any]:
    """Measure a network on labelled images: top-1, top-5 and per-class top-1 in percent.

    With a ``teacher``, also its top-1, the agreement of both in percent and the KL divergence from it in nats.
    """
    found = load_labelled(data, size)
    labelled = match_classes(found, network.num_classes, network.classes, data)
    _warn_if_trained_on(network, labelled)
    require_size(network.arch, network.num_classes, labelled.size)
    logits, labels = network.logits(labelled, device), labelled.labels
    result = {
        "arch": network.arch,
        "images": len(labels),
        "found": str(labelled),
        "classes": list(labelled.names),
        "top1": top_k(logits, labels, 1),
        "top5": top_k(logits, labels, 5),
        "per_class": per_class_top1(logits, labels),
    }
    if teacher is None:
        return result
    _warn_if_trained_on(teacher, labelled)
    if teacher.num_classes != network.num_classes:
        raise DistillError(
            f"{teacher.path}: has {counted(teacher.num_classes, 'class')}, {network.path} has {network.num_classes}; "
            "they cannot be compared"
        )
    if teacher.classes and network.classes and teacher.classes != network.classes:
        raise DistillError(
            f"{teacher.path}: its classes ({teacher.classes[0]}, …) are not those of {network.path}, or in another "
            "order; evaluate each alone"
        )
    teacher_logits = teacher.logits(labelled, device)
    return result | {
        "teacher_top1": top_k(teacher_logits, labels, 1),
        "agreement": agreement(logits, teacher_logits),
        "kl_to_teacher": kl_to(teacher_logits, logits),
    }


def _warn_if_trained_on(network: Network, data: LabelledImages) -> None:
    if network.data_sha256 == data.sha256:
        logger.info(
            f"{data.where}: these are the images that {network.path} was trained on: "
            "its figures say nothing of others"
        )
