"""Compute the logits of a network on labelled images, and metrics of logits. Percentages are 0 to 100."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.augment import normalize
from distill.data.labelled import LabelledImages
from distill.errors import DistillError
from distill.runtime.distributed import RunContext
from distill.weights.files import Triple

Dtype = torch.dtype | None
BATCH = 500


@torch.inference_mode()
def logits_of(
    model: nn.Module, data: LabelledImages, mean: Triple, std: Triple, context: RunContext, dtype: Dtype = None
) -> Tensor:
    """Return the logits of ``model`` in eval mode for every image: float32 (N, classes) on the CPU.

    ``dtype`` is the dtype of the weights; None means float32. The mode of the model is restored. Each rank computes
    some of the batches. The batches do not depend on the number of ranks.
    """
    was_training = model.training
    model.eval()
    outputs = {}
    for number, images in enumerate(data.images.split(BATCH)):
        if number % context.ranks.world_size == context.ranks.rank:
            x = normalize(images.to(context.device), mean, std)
            x = x if dtype is None else x.to(dtype)
            outputs[number] = model(x).float().cpu()
    model.train(was_training)
    logits = context.ranks.gather(outputs, -(-len(data.images) // BATCH))
    if not bool(torch.isfinite(logits).all()):
        range_error = "float16 cannot represent them; set train.precision fp32"
        reason = range_error if dtype == torch.float16 else "the weights are corrupt; choose another weight file"
        raise DistillError(f"the logits of a network on the evaluation data are not finite: {reason}")
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
    """Return a matrix: [i][j] counts images of class i in ``first`` and class j in ``second``, both int64 (N,)."""
    counts = torch.bincount(first * num_classes + second, minlength=num_classes**2)
    return list(counts.reshape(num_classes, num_classes).tolist())


def kl_to(teacher: Tensor, student: Tensor) -> float:
    """Return KL(teacher ‖ student) of softmax(logits), both (N, classes), in nats, averaged over the images."""
    log_p, log_q = (F.log_softmax(logits.double(), dim=1) for logits in (teacher, student))
    return float(F.kl_div(log_q, log_p, reduction="batchmean", log_target=True))


def _percent(right: Tensor) -> float:
    return 100 * int(right.sum()) / len(right)
