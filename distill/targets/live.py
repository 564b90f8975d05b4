"""Compute the logits of one or several teachers from the images of the student."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.models import require_size
from distill.models.arch import is_foreign
from distill.models.own import require_outputs
from distill.models.pretrained import Interpolation
from distill.runtime.compile import Accelerator
from distill.runtime.device import DTYPES
from distill.targets.losses import Loss
from distill.targets.teacher import Network
from distill.targets.teacher_config import Combine
from distill.weights.files import Triple

Normalization = tuple[Triple, Triple]  # mean and std of RGB in [0, 1]
_MODES = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherInput:
    """Convert images of the student to images of a teacher, on the device: float32 (B, 3, H, W), both normalized."""

    student: Normalization
    teacher: Normalization
    size: int  # pixels a side of the result
    interpolation: Interpolation

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x`` with the mean, the std and the size of the teacher, in channels-last memory."""
        if self.student != self.teacher:
            pairs = torch.tensor([self.student, self.teacher], dtype=torch.float64)
            (mean, std), (own_mean, own_std) = pairs[..., None, None]  # each (3, 1, 1)
            x = torch.addcmul(((mean - own_mean) / own_std).to(x), x, (std / own_std).to(x))
        if x.shape[-1] != self.size:
            antialias = self.interpolation != "nearest"
            mode = _MODES[self.interpolation]
            x = F.interpolate(x, size=(self.size, self.size), mode=mode, antialias=antialias)
        return x.contiguous(memory_format=torch.channels_last)


def teacher_input(teacher: Network, normalization: Normalization, size: int) -> TeacherInput | None:
    """Return the conversion of the student's images of ``size`` px for a teacher; None if none is needed."""
    own, own_size = (teacher.mean, teacher.std), teacher.size or size
    if own == normalization and own_size == size:
        return None
    return TeacherInput(student=normalization, teacher=own, size=own_size, interpolation=teacher.interpolation)


class LiveTeachers(nn.Module):
    """Map images of the student, float32 (B, 3, H, W), to logits of one or several teachers in the same order.

    The result is (B, classes). It is (B, teachers, classes) if ``combine`` is ``losses``.
    """

    def __init__(
        self, teacher: Network, normalization: Normalization, size: int, prepare: Callable[[nn.Module, int], Any]
    ) -> None:
        """Create the function. ``prepare(module, size)`` returns a function that computes a network."""
        super().__init__()
        members = members_of(teacher)
        self.inputs = [teacher_input(each, normalization, size) for each in members]
        self.orders = [None if each.order is None else torch.tensor(each.order) for each in members]
        self.weights = [each.weight for each in members]
        self.combine: Combine = teacher.combine
        self.networks: list[Any] = [prepare(each.model, each.size or size) for each in members]

    @property
    def is_plain(self) -> bool:
        """Whether this is one teacher, which sees the student's images as they are."""
        return len(self.networks) == 1 and self.inputs[0] is None and self.orders[0] is None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of all teachers, and combine them."""
        outputs = []
        for network, convert, order in zip(self.networks, self.inputs, self.orders, strict=True):
            logits = network(x if convert is None else convert(x))
            outputs.append(logits if order is None else logits[:, order.to(logits.device)])
        return combine_logits(outputs, self.weights, self.combine)


def combine_logits(outputs: Sequence[Tensor], weights: Sequence[float], combine: Combine) -> Tensor:
    """Return the mean of the logits of teachers, each (B, classes), with ``weights``.

    For ``probabilities``, the result has the mean of the probabilities: it is their logarithm. For ``losses``, the
    logits are stacked, (B, teachers, classes), and the loss computes the mean.
    """
    if len(outputs) == 1:
        return outputs[0]
    if combine == "losses":
        return torch.stack([logits.float() for logits in outputs], dim=1)
    shares = torch.tensor(weights, dtype=torch.float32, device=outputs[0].device)
    shares = (shares / shares.sum())[:, None, None]
    stacked = torch.stack([logits.float() for logits in outputs])
    if combine == "logits":
        return (shares * stacked).sum(dim=0)
    return torch.logsumexp(F.log_softmax(stacked, dim=2) + shares.log(), dim=0)


def members_of(teacher: Network) -> tuple[Network, ...]:
    """Return the first teacher and the others."""
    return teacher, *teacher.others


def loss_of_each(loss: Loss, weights: Sequence[float]) -> Loss:
    """Return a loss of the logits of several teachers, (B, teachers, classes): the mean of ``loss``."""
    total = sum(weights)

    def mean(student: Tensor, teachers: Tensor) -> Tensor:
        parts = [loss(student, logits) * (w / total) for logits, w in zip(teachers.unbind(1), weights, strict=True)]
        return torch.stack(parts).sum()

    return mean


def measured_teacher(
    teacher: Network, normalization: Normalization, size: int, accelerator: Accelerator
) -> LiveTeachers:
    """Return the teachers as in training, but not compiled. For losses, the mean is that of the probabilities."""
    dtype = DTYPES[accelerator.precision]

    def prepare(model: nn.Module, size: int) -> Callable[[Tensor], Tensor]:
        folded = accelerator.folded(model)
        return lambda x: folded(x.to(dtype))

    combine: Combine = "probabilities" if teacher.combine == "losses" else teacher.combine
    return LiveTeachers(dataclasses.replace(teacher, combine=combine), normalization, size, prepare)


def require_inputs(teacher: Network, size: int) -> None:
    """Check that each teacher accepts its images, if those of the student have ``size`` px."""
    for each in members_of(teacher):
        if is_foreign(each.arch):
            require_outputs(each.model, each.size or size, each.arch, each.num_classes)
        else:
            require_size(each.arch, each.num_classes, each.size or size)


def with_own_input(network: Network, size: int) -> nn.Module:
    """Return a module for images of ``size`` px, normalized for ``network``, which may need another size."""
    live = LiveTeachers(network, (network.mean, network.std), size, lambda model, _: model)
    return network.model if live.is_plain else live
