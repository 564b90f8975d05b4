"""Wiring of ``distill eval``: the network in a weight file, measured on labelled images, beside a teacher or not."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.data.classes import match_classes
from distill.data.labelled import LabelledImages, load_labelled
from distill.errors import DistillError
from distill.evaluation.metrics import agreement, kl_to, logits_of, per_class_top1, top_k
from distill.models import require_size
from distill.targets.teacher import normalisation
from distill.weights.files import Triple, load_weights
from distill.weights.load import build_filled, count_classes
from manifests.support.console import note
from manifests.support.counts import counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network from a weight file, and how its input is normalised.

    ``classes`` are its class names and ``data_sha256`` is the digest of the labelled images it was trained on, both
    where the file says so, and ``bn_eps`` is that of its batch norms where it is not the network's usual one.
    """

    model: nn.Module
    arch: str
    num_classes: int
    mean: Triple
    std: Triple
    classes: tuple[str, ...] = ()
    data_sha256: str | None = None
    bn_eps: float | None = None

    def logits(self, data: LabelledImages, device: torch.device) -> Tensor:
        """Logits (N, classes), float32 on the CPU."""
        return logits_of(self.model, data, self.mean, self.std, device)


def load_network(
    path: Path,
    arch: str | None,
    mean: Triple | None,
    std: Triple | None,
    device: torch.device,
    bn_eps: float | None = None,
) -> Network:
    """The network in a weight file, ready for use; what the file says of itself need not be given.

    Raises:
        DistillError: the file is missing, damaged or silent on what is not given, or contradicts it.
    """
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
    mean, std = normalisation(weights, mean, std, prefix="--")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(
        model=model,
        arch=arch,
        num_classes=num_classes,
        mean=mean,
        std=std,
        classes=weights.classes,
        data_sha256=weights.data_sha256,
        bn_eps=weights.bn_eps,
    )


def evaluate_weights(
    path: Path,
    arch: str | None,
    data: Path,
    *,
    mean: Triple | None,
    std: Triple | None,
    size: int | None,
    teacher: Path | None,
    device: torch.device,
) -> dict[str, Any]:
    """Top-1, top-5 and per-class top-1 in percent of the network in a weight file, the classes' names if known, and
    what was found in ``data``.

    With the weight file of a ``teacher`` that says what it is, also its top-1, the agreement of both in percent and
    the KL divergence from it in nats.

    Raises:
        DistillError: a file, the network's name or the data is wrong.
    """
    network = load_network(path, arch, mean, std, device)
    found = load_labelled(data, size)
    labelled = match_classes(found, network.num_classes, network.classes, data, note)
    if network.data_sha256 == found.sha256:
        note(f"{found.where}: these are the images that {path} was trained on: its figures say nothing of others")
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
    other = load_network(teacher, None, None, None, device)
    if other.data_sha256 == found.sha256:
        note(f"{found.where}: these are the images that {teacher} was trained on: its figures say nothing of others")
    if other.num_classes != network.num_classes:
        raise DistillError(
            f"{teacher}: has {counted(other.num_classes, 'class')}, {path} has {network.num_classes}; "
            "they cannot be compared"
        )
    if other.classes and network.classes and other.classes != network.classes:
        raise DistillError(
            f"{teacher}: its classes ({other.classes[0]}, …) are not those of {path}, or in another order"
        )
    reference = other.logits(labelled, device)
    return result | {
        "teacher_top1": top_k(reference, labels, 1),
        "agreement": agreement(logits, reference),
        "kl_to_teacher": kl_to(reference, logits),
    }
