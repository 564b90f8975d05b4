"""Optimizers and learning-rate schedules: their configs and how they are made."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

Schedule = Literal["constant", "cosine", "onecycle", "milestones"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
MOMENTUM, GAMMA = 0.9, 0.1
ONECYCLE_MOMENTUM = (0.85, 0.95)
"""The range in which torch's one-cycle schedule moves momentum or Adam's first beta, whatever the optimizer has."""


class _Optim(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    lr: Annotated[float, Field(gt=0, description="learning rate; a one-cycle schedule's highest")]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Annotated[
        Schedule, Field(description="of lr: constant, half a cosine to 0, torch's one cycle, drops at milestones")
    ] = "constant"
    milestones: Annotated[
        tuple[Fraction, ...],
        Field(max_length=100, description="fractions of the run at which schedule milestones multiplies lr by gamma"),
    ] = ()
    gamma: Annotated[
        float | None, Field(gt=0, lt=1, description=f"factor at each of the milestones, which is {GAMMA} unless told")
    ] = None
    warmup: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of the run over which lr first rises linearly; not with onecycle"),
    ] = 0.0

    @model_validator(mode="after")
    def _schedule_has_its_keys(self) -> Self:
        if self.schedule != "milestones" and (self.milestones or self.gamma is not None):
            key = "milestones" if self.milestones else "gamma"
            raise ValueError(f"{key} needs schedule milestones, schedule is {self.schedule}")
        if self.schedule == "milestones" and not self.milestones:
            raise ValueError("schedule milestones needs milestones, such as [0.5, 0.75]")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {list(self.milestones)}, expected growing fractions of the run")
        if self.milestones and self.milestones[0] < self.warmup:
            raise ValueError(f"the first of the milestones, {self.milestones[0]}, is in the warmup of {self.warmup}")
        if self.schedule == "onecycle" and self.warmup:
            raise ValueError("warmup is not used by schedule onecycle, which warms up by itself; leave it out")
        return self

    def _require_uncycled(self, what: str, value: float) -> None:
        """Raise ValueError for a momentum that the schedule would replace at every step."""
        if self.schedule == "onecycle" and value != MOMENTUM:
            low, high = ONECYCLE_MOMENTUM
            raise ValueError(f"{what} is {value}, but onecycle moves it between {low} and {high}; leave it out")


class _AdamLike(_Optim):
    betas: Annotated[
        tuple[Beta, Beta], Field(description="decay of the averages of gradients and of their squares")
    ] = (MOMENTUM, 0.999)
    eps: Annotated[float, Field(gt=0, le=1, description="added to the root of the averaged squares")] = 1e-8

    @model_validator(mode="after")
    def _onecycle_moves_the_first_beta(self) -> Self:
        self._require_uncycled("the first of betas", self.betas[0])
        return self


class AdamConfig(_AdamLike):
    """Adam; weight decay is added to the gradient."""

    name: Literal["adam"]


class AdamWConfig(_AdamLike):
    """AdamW; weight decay acts on the weights directly."""

    name: Literal["adamw"]


class SgdConfig(_Optim):
    """SGD with momentum."""

    name: Literal["sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = MOMENTUM
    nesterov: bool = False

    @model_validator(mode="after")
    def _momentum_has_a_use(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        self._require_uncycled("momentum", self.momentum)
        return self


OptimConfig = Annotated[AdamConfig | AdamWConfig | SgdConfig, Field(discriminator="name")]
OPTIMIZERS: dict[str, type[_Optim]] = {"adam": AdamConfig, "adamw": AdamWConfig, "sgd": SgdConfig}


def make_optimizer(
    config: AdamConfig | AdamWConfig | SgdConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return the fused optimizer that ``config`` names, over ``parameters``."""
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(parameters, momentum=config.momentum, nesterov=config.nesterov, **shared)
    make = torch.optim.Adam if isinstance(config, AdamConfig) else torch.optim.AdamW
    return make(parameters, betas=config.betas, eps=config.eps, **shared)


def state_keys(optimizer: torch.optim.Optimizer) -> frozenset[str]:
    """Return the keys of the state that an optimizer of ``make_optimizer`` keeps for each parameter."""
    if isinstance(optimizer, torch.optim.SGD):
        return frozenset({"momentum_buffer"} if optimizer.defaults["momentum"] else ())
    return frozenset({"step", "exp_avg", "exp_avg_sq"})


def make_scheduler(
    config: AdamConfig | AdamWConfig | SgdConfig, optimizer: torch.optim.Optimizer, steps: int
) -> LRScheduler:
    """Return the schedule that ``config`` names, to be stepped once after each of ``steps`` steps.

    ``constant`` keeps lr; ``cosine`` falls from lr to 0; ``milestones`` multiplies it by ``gamma`` at each of them;
    ``onecycle`` is torch's: from lr / 25 up to lr at 30 % of the steps, then down to lr / 250,000, with momentum (or
    Adam's first beta) moving the other way. A warm-up comes before the first three, as ``_factor`` says.
    """
    match config.schedule:
        case "onecycle":
            low, high = ONECYCLE_MOMENTUM
            return OneCycleLR(
                optimizer, config.lr, total_steps=max(steps, 2) + 1, base_momentum=low, max_momentum=high
            )
        case "constant" if not config.warmup:
            return ConstantLR(optimizer, factor=1.0, total_iters=1)
        case "cosine" if not config.warmup:
            return CosineAnnealingLR(optimizer, T_max=steps)
        case _:
            return LambdaLR(optimizer, lambda step: _factor(config, step, steps))


def _factor(config: AdamConfig | AdamWConfig | SgdConfig, step: int, steps: int) -> float:
    """Return the factor of lr in ``step`` of ``steps``, counted from 0.

    A warm-up of w steps has lr / (w + 1), 2 lr / (w + 1) and so on: the step after it is the first with lr itself.
    The cosine spans the steps after the warm-up. Milestones are fractions of the whole run.
    """
    warm = math.ceil(round(config.warmup * steps, 6))  # 0.07 · 100 is a little more than 7
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2
    passed = sum(step / steps >= milestone for milestone in config.milestones)
    return (GAMMA if config.gamma is None else config.gamma) ** passed
