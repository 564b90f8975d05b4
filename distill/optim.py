"""Optimisers and learning-rate schedules, each with the parameters it uses and no others."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR

Schedule = Literal["constant", "cosine", "onecycle"]


class _Optim(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    lr: Annotated[float, Field(gt=0, description="learning rate; a one-cycle schedule's highest")]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Schedule = "constant"


class AdamConfig(_Optim):
    """Adam; weight decay is added to the gradient."""

    name: Literal["adam"]


class AdamWConfig(_Optim):
    """AdamW; weight decay acts on the weights directly."""

    name: Literal["adamw"]


class SgdConfig(_Optim):
    """SGD with momentum."""

    name: Literal["sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


OptimConfig = Annotated[AdamConfig | AdamWConfig | SgdConfig, Field(discriminator="name")]


def make_optimizer(
    config: AdamConfig | AdamWConfig | SgdConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser that ``config`` names, over ``parameters``, updating all of them in one call."""
    match config:
        case AdamConfig():
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        case AdamWConfig():
            return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        case SgdConfig():
            return torch.optim.SGD(
                parameters,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                nesterov=config.nesterov,
                fused=True,
            )


def state_keys(optimizer: torch.optim.Optimizer) -> frozenset[str]:
    """What a step of an optimiser of ``make_optimizer`` keeps of each parameter."""
    if isinstance(optimizer, torch.optim.SGD):
        return frozenset({"momentum_buffer"} if optimizer.defaults["momentum"] else ())
    return frozenset({"step", "exp_avg", "exp_avg_sq"})


def make_scheduler(
    config: AdamConfig | AdamWConfig | SgdConfig, optimizer: torch.optim.Optimizer, steps: int
) -> LRScheduler:
    """The schedule that ``config`` names over ``steps`` steps, stepped once after each.

    ``constant`` keeps lr; ``cosine`` falls from lr to 0; ``onecycle`` is torch's: from lr / 25 up to lr at
    30 % of the steps, then down to lr / 250,000, with momentum (or Adam's first beta) moving the other way.
    """
    match config.schedule:
        case "constant":
            return ConstantLR(optimizer, factor=1.0, total_iters=1)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=steps)
        case "onecycle":
            return OneCycleLR(optimizer, max_lr=config.lr, total_steps=max(steps, 2) + 1)
