"""``distill eval``: measure the network of a weight file on labelled images, and compare it with a teacher."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill.data.datasets import MapDataset
from distill.data.labelled import LabelledImages, Size
from distill.errors import DistillError
from distill.evaluation.evaluator import Evaluator, load_evaluation_data, logits_of, warn_if_trained_on
from distill.models import require_size
from distill.models.own import require_outputs
from distill.runtime.distributed import RunContext
from distill.targets.teacher import Network, build_network
from distill.weights.files import Triple, load_weights
from distill.weights.load import count_classes
from manifests.support.counts import counted

FIGURES = ("top1", "top5", "per_class", "teacher_top1", "agreement", "kl_to_teacher")


def load_network(
    path: Path,
    arch: str | nn.Module | None,
    mean: Triple | None,
    std: Triple | None,
    device: torch.device,
    bn_eps: float | None = None,
) -> Network:
    """Load the network of the weight file ``path``. For an argument that is None, use the value in the file.

    If ``arch`` is a module of the user, the weights are loaded into a copy of it.
    """
    weights = load_weights(path)
    if bn_eps is not None:
        if weights.bn_eps not in (None, bn_eps):
            found = f"the file declares bn_eps {weights.bn_eps}, but --bn-eps is {bn_eps}"
            raise DistillError(f"{path}: {found}; remove --bn-eps")
        weights = dataclasses.replace(weights, bn_eps=bn_eps)
    arch = weights.arch if arch is None else arch
    if arch is None:
        raise DistillError(f"{path}: the file does not name its network; run 'distill convert' on it with --arch")
    num_classes = weights.num_classes or count_classes(weights, arch)
    return build_network(weights, arch, num_classes, (mean, std), device, "--")


def evaluate(
    network: Network,
    data: Path | MapDataset | LabelledImages,
    size: Size,
    teacher: Network | None,
    device: torch.device,
) -> dict[str, Any]:
    """Measure a network on the labelled images in ``data``: top-1, top-5 and top-1 of each class, in percent.

    With a ``teacher``, also measure the teacher's top-1 and the agreement with the teacher, both in percent, and the
    KL divergence from the teacher in nats.
    """
    labelled = load_evaluation_data(data, size, network.num_classes, network.classes)
    warn_if_trained_on(str(network.path), network.data_sha256, labelled)
    if ":" in network.arch:  # a class of the user
        require_outputs(network.model, labelled.size, network.arch, network.num_classes)
    else:
        require_size(network.arch, network.num_classes, labelled.size)
    context, teacher_logits = RunContext(device=device), None
    if teacher is not None:
        warn_if_trained_on(str(teacher.path), teacher.data_sha256, labelled)
        pairs = enumerate(zip(teacher.classes, network.classes, strict=False))
        faults = [(f"the name {old!r} for class {number}", repr(new)) for number, (old, new) in pairs if old != new]
        if teacher.num_classes != network.num_classes:
            faults = [(counted(teacher.num_classes, "class"), str(network.num_classes))]
        if faults:
            differ = f"the teacher has {faults[0][0]}, but {network.path} has {faults[0][1]}"
            raise DistillError(f"{teacher.path}: {differ}; choose a --teacher with the same classes in this order")
        teacher_logits = logits_of(teacher.model, labelled, teacher.mean, teacher.std, context)
    evaluator = Evaluator(labelled, (network.mean, network.std), teacher_logits, context, prefix="")
    figures, _ = evaluator.evaluate(network.model)
    found = {"arch": network.arch, "images": len(labelled.labels), "found": str(labelled)}
    return found | {"classes": list(labelled.names)} | {name: figures[name] for name in FIGURES if name in figures}
