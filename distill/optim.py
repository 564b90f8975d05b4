"""Optimizers and learning-rate schedules, and their configs."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

Fraction = Annotated[float, Field(gt=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
MOMENTUM, GAMMA = 0.9, 0.1
ONECYCLE_MOMENTUM = (0.85, 0.95)
"""Range in which torch's one-cycle schedule moves the momentum, or Adam's first beta."""


class _Optim(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    lr: float = Field(gt=0, description="learning rate; with onecycle, the highest learning rate")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine", "onecycle", "milestones"] = "constant"
    "of lr: constant, half a cosine to 0, torch's one cycle, drops at milestones"
    milestones: tuple[Fraction, ...] = Field(default=(), max_length=100)
    "fractions of the run at which schedule milestones multiplies lr by gamma"
    gamma: float | None = Field(default=None, gt=0, lt=1, description=f"factor at each milestone; default {GAMMA}")
    warmup: float = Field(default=0.0, ge=0, lt=1)
    "fraction of the run in which lr first rises linearly; not with onecycle"

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule != "milestones" and (self.milestones or self.gamma is not None):
            key = "milestones" if self.milestones else "gamma"
            raise ValueError(f"{key} needs schedule milestones, but schedule is {self.schedule}")
        if self.schedule == "milestones" and not self.milestones:
            raise ValueError("schedule milestones needs milestones, such as [0.5, 0.75]")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {list(self.milestones)}, expected increasing fractions of the run")
        if self.milestones and self.milestones[0] < self.warmup:
            first = self.milestones[0]
            raise ValueError(f"the first milestone is {first}, expected at least the warmup {self.warmup}")
        if self.schedule == "onecycle" and self.warmup:
            raise ValueError("schedule onecycle does not use warmup, because it has its own; omit warmup")
        return self

    def _require_unchanged_by_schedule(self, name: str, value: float) -> None:
        """Raise ValueError for a momentum that the schedule would replace at every step."""
        if self.schedule == "onecycle" and value != MOMENTUM:
            low, high = ONECYCLE_MOMENTUM
            raise ValueError(f"{name} is {value}, but onecycle moves it between {low} and {high}; omit {name}")


class AdamConfig(_Optim):
    """Adam adds weight decay to the gradient; AdamW subtracts it from the weights."""

    betas: tuple[Beta, Beta] = (MOMENTUM, 0.999)
    "decay of the averages of gradients and of their squares"
    eps: float = Field(default=1e-8, gt=0, le=1, description="added to the root of the averaged squares")
    name: Literal["adam", "adamw"]

    @model_validator(mode="after")
    def _check_betas(self) -> Self:
        self._require_unchanged_by_schedule("the first of betas", self.betas[0])
        return self


class SgdConfig(_Optim):
    """SGD with momentum."""

    name: Literal["sgd"]
    momentum: float = Field(default=MOMENTUM, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        self._require_unchanged_by_schedule("momentum", self.momentum)
        return self


OptimConfig = Annotated[AdamConfig | SgdConfig, Field(discriminator="name")]


def make_optimizer(config: AdamConfig | SgdConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the fused optimizer that ``config`` describes, for ``parameters``."""
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(parameters, momentum=config.momentum, nesterov=config.nesterov, **shared)
    make = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return make(parameters, betas=config.betas, eps=config.eps, **shared)


def state_keys(optimizer: torch.optim.Optimizer) -> frozenset[str]:
    """Return the keys of the state that an optimizer of ``make_optimizer`` keeps for each parameter."""
    if isinstance(optimizer, torch.optim.SGD):
        return frozenset({"momentum_buffer"} if optimizer.defaults["momentum"] else ())
    return frozenset({"step", "exp_avg", "exp_avg_sq"})


def make_scheduler(config: AdamConfig | SgdConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Return the schedule that ``config`` describes. Call its ``step`` once after each of ``steps`` steps.

    ``constant`` keeps lr. ``cosine`` falls from lr to 0. ``milestones`` multiplies lr by ``gamma`` at each milestone.
    ``onecycle`` is torch's: from lr / 25 up to lr at 30 % of the steps, then down to lr / 250,000. Its momentum (or
    Adam's first beta) moves in the opposite direction. The other schedules may begin with a warm-up, see ``_factor``.
    """
    match config.schedule:
        case "onecycle":
            low, high = ONECYCLE_MOMENTUM
            total = max(steps, 2) + 1
            return OneCycleLR(optimizer, config.lr, total_steps=total, base_momentum=low, max_momentum=high)
        case "cosine" if not config.warmup:
            return CosineAnnealingLR(optimizer, T_max=steps)
        case _:
            return LambdaLR(optimizer, lambda step: _factor(config, step, steps))


def _factor(config: AdamConfig | SgdConfig, step: int, steps: int) -> float:
    """Return the factor of lr in ``step`` of ``steps``, counted from 0.

    A warm-up of w steps has lr / (w + 1), 2 lr / (w + 1) and so on. The next step is the first step with lr itself.
    The cosine covers the steps after the warm-up. Milestones are fractions of the whole run.
    """
    warm = math.ceil(round(config.warmup * steps, 6))  # 0.07 · 100 is a little more than 7
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2
    passed = sum(step / steps >= milestone for milestone in config.milestones)
    return (GAMMA if config.gamma is None else config.gamma) ** passed
