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
from distill.models.libraries import require_local
from distill.runtime.distributed import RunContext
from distill.targets.class_order import class_order
from distill.targets.live import require_inputs, with_own_input
from distill.targets.teacher import PRETRAINED, Network, build_network, load_published
from distill.user_code import attributed
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

    If ``path`` is ``pretrained``, use the weights that timm, transformers or torchvision publishes for ``arch``.
    If ``arch`` is a module of the user, the weights are loaded into a copy of it.
    """
    if str(path) == PRETRAINED:
        if not isinstance(arch, str):
            found = "the network of the published weights is not named"
            raise DistillError(f"{PRETRAINED}: {found}; add its name, such as --arch timm/resnet50.a1_in1k")
        return load_published(arch, (mean, std), device)
    weights = load_weights(path)
    if bn_eps is not None:
        if weights.bn_eps not in (None, bn_eps):
            found = f"the file declares bn_eps {weights.bn_eps}, but --bn-eps is {bn_eps}"
            raise DistillError(f"{path}: {found}; remove --bn-eps")
        weights = dataclasses.replace(weights, bn_eps=bn_eps)
    if arch is None and weights.arch is not None:
        require_local(weights.arch, path)
        arch = weights.arch
    if arch is None:
        raise DistillError(f"{path}: the file does not name its network; run 'distill convert' on it with --arch")
    num_classes = weights.num_classes or count_classes(weights, arch)
    return build_network(weights, arch, num_classes, (mean, std), device, "--")


def _in_order_of(network: Network, teacher: Network) -> Network:
    """Return ``teacher`` with logits in the order of the classes of ``network``, which are matched by name."""
    if teacher.classes and network.classes and teacher.num_classes == network.num_classes:
        return dataclasses.replace(teacher, order=class_order(teacher.classes, network.classes, str(teacher.path)))
    if teacher.num_classes != network.num_classes:
        differ = (
            f"the teacher has {counted(teacher.num_classes, 'class')}, but {network.path} has {network.num_classes}"
        )
        raise DistillError(f"{teacher.path}: {differ}; choose a --teacher with the same classes")
    return teacher


@attributed()
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
    require_inputs(network, labelled.size)
    context, teacher_logits = RunContext(device=device), None
    if teacher is not None:
        warn_if_trained_on(str(teacher.path), teacher.data_sha256, labelled)
        teacher = _in_order_of(network, teacher)
        model = with_own_input(teacher, labelled.size)
        teacher_logits = logits_of(model, labelled, teacher.mean, teacher.std, context)
    evaluator = Evaluator(labelled, (network.mean, network.std), teacher_logits, context, prefix="")
    figures, _ = evaluator.evaluate(with_own_input(network, labelled.size))
    found = {"arch": network.arch, "images": len(labelled.labels), "found": str(labelled)}
    return found | {"classes": list(labelled.names)} | {name: figures[name] for name in FIGURES if name in figures}
