"""Evaluation: a network and labelled images in, logits and top-1 out."""

import torch
from torch import Tensor, nn

from distill.augment import normalise
from distill.errors import DistillError
from distill.evaldata import LabelledImages
from distill.weights import Triple

BATCH = 500


@torch.inference_mode()
def logits_of(model: nn.Module, data: LabelledImages, mean: Triple, std: Triple, device: torch.device) -> Tensor:
    """Logits of ``model`` in eval mode, in float32, for every image: (N, classes) on the CPU.

    The model is left in the mode it was in.

    Raises:
        DistillError: a logit is not finite.
    """
    was_training = model.training
    model.eval()
    outputs = []
    for images in data.images.split(BATCH):
        x = normalise(images.to(device), mean, std)
        outputs.append(model(x).float().cpu())
    model.train(was_training)
    logits = torch.cat(outputs)
    if not bool(torch.isfinite(logits).all()):
        raise DistillError("a network's logits on the evaluation data are not finite: its weights are damaged")
    return logits


def top1(logits: Tensor, labels: Tensor) -> float:
    """Percent of images whose largest logit is their label."""
    return 100.0 * float((logits.argmax(dim=1) == labels).double().mean())


def agreement(first: Tensor, second: Tensor) -> float:
    """Percent of images to which two networks' logits, both (N, classes), give the same class."""
    return 100.0 * float((first.argmax(dim=1) == second.argmax(dim=1)).double().mean())
