"""Evaluation: a network and labelled images in, logits and what they are worth out. Percentages are 0 to 100."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.augment import normalize
from distill.data.labelled import LabelledImages
from distill.errors import DistillError
from distill.runtime.distributed import ALONE, Ranks
from distill.weights.files import Triple

BATCH = 500


@torch.inference_mode()
def logits_of(
    model: nn.Module,
    data: LabelledImages,
    mean: Triple,
    std: Triple,
    device: torch.device,
    ranks: Ranks = ALONE,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Logits of ``model`` in eval mode for every image: float32 (N, classes) on the CPU.

    The normalised images are given ``dtype``, that of the weights, or left in float32. The model is left
    in the mode it was in. ``ranks`` share the work, in the batches that one process would make.

    Raises:
        DistillError: a logit is not finite.
    """
    was_training = model.training
    model.eval()
    outputs = {}
    for number, images in enumerate(data.images.split(BATCH)):
        if number % ranks.world == ranks.rank:
            x = normalize(images.to(device), mean, std)
            x = x if dtype is None else x.to(dtype)
            outputs[number] = model(x).float().cpu()
    model.train(was_training)
    logits = ranks.gather(outputs, -(-len(data.images) // BATCH))
    if not bool(torch.isfinite(logits).all()):
        small = "they are beyond float16; set train.precision fp32"
        why = small if dtype == torch.float16 else "its weights are damaged"
        raise DistillError(f"a network's logits on the evaluation data are not finite: {why}")
    return logits


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Percent of images whose label is among their ``k`` largest logits, or all of them if they are fewer."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices  # N k
    return _percent((best == labels[:, None]).any(dim=1))


def per_class_top1(logits: Tensor, labels: Tensor) -> list[float | None]:
    """Top-1 in percent of the images of each class; None for a class without images."""
    right = logits.argmax(dim=1) == labels
    of_class = [labels == number for number in range(logits.shape[1])]
    return [_percent(right[mask]) if bool(mask.any()) else None for mask in of_class]


def agreement(first: Tensor, second: Tensor) -> float:
    """Percent of images to which two networks' logits, both (N, classes), give the same class."""
    return _percent(first.argmax(dim=1) == second.argmax(dim=1))


def confusion(first: Tensor, second: Tensor, num_classes: int) -> list[list[int]]:
    """How many images have class i in ``first`` and j in ``second``, both int64 (N,): row i, column j."""
    counts = torch.bincount(first * num_classes + second, minlength=num_classes**2)
    rows: list[list[int]] = counts.reshape(num_classes, num_classes).tolist()
    return rows


def kl_to(teacher: Tensor, student: Tensor) -> float:
    """KL(teacher ‖ student) of the softmax of logits (N, classes) at T = 1, in nats, averaged over the images."""
    log_p, log_q = (F.log_softmax(logits.double(), dim=1) for logits in (teacher, student))
    return float(F.kl_div(log_q, log_p, reduction="batchmean", log_target=True))


def _percent(right: Tensor) -> float:
    return 100 * int(right.sum()) / len(right)
