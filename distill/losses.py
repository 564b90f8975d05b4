"""Distillation losses: student and teacher logits in, one number out. Pure functions."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


class LossConfig(BaseModel):
    """Which loss, and the temperature both networks' logits are divided by."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Literal["kl"] = "kl"
    temperature: Annotated[float, Field(gt=0, le=1000)] = 8.0


def make_loss(config: LossConfig) -> Loss:
    """The loss that ``config`` names, as a function of student and teacher logits, both (B, classes)."""

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        return kl_loss(student, teacher, config.temperature)

    return loss


def kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of softmax(logits / T): summed over classes, averaged over the batch.

    The factor T² keeps the gradient's size when T changes (Hinton et al. 2015, arXiv 1503.02531, section 2).
    ``student`` and ``teacher`` are logits of shape (B, classes); computed in float32 whatever their dtype.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2
