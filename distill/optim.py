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
"""Smallest and largest momentum (or first beta of Adam) that torch's one-cycle schedule sets."""


class _Optim(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    lr: float = Field(gt=0, description="learning rate; with onecycle, the highest learning rate")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine", "onecycle", "milestones"] = "constant"
    "change of lr during the run: constant, half a cosine to 0, torch's one cycle, or drops at milestones"
    milestones: tuple[Fraction, ...] = Field(default=(), max_length=100)
    "fractions of the run at which schedule milestones multiplies lr by gamma"
    gamma: float | None = Field(default=None, gt=0, lt=1, description=f"factor at each milestone; default {GAMMA}")
    warmup: float = Field(default=0.0, ge=0, lt=1)
    "fraction of the run in which lr first rises linearly; not with onecycle"

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule != "milestones" and (self.milestones or self.gamma is not None):
            key = "milestones" if self.milestones else "gamma"
            raise ValueError(f"{key} needs the schedule milestones, but schedule is {self.schedule}; omit {key}")
        if self.schedule == "milestones" and not self.milestones:
            raise ValueError("schedule milestones needs the key milestones; set milestones, such as [0.5, 0.75]")
        if list(self.milestones) != sorted(set(self.milestones)):
            found = f"milestones are {list(self.milestones)}, expected increasing fractions of the run"
            raise ValueError(f"{found}; sort the milestones, and keep one of equal milestones")
        if self.milestones and self.milestones[0] < self.warmup:
            first = self.milestones[0]
            raise ValueError(f"the first milestone is {first}, but warmup is {self.warmup}; lower warmup to {first}")
        if self.schedule == "onecycle" and self.warmup:
            raise ValueError("schedule onecycle already has a warm-up; omit warmup")
        return self

    def _require_unchanged_by_schedule(self, name: str, value: float) -> None:
        """Raise ValueError if the schedule replaces the momentum ``name``, so that ``value`` would have no effect."""
        if self.schedule == "onecycle" and value != MOMENTUM:
            raise ValueError(f"schedule onecycle changes {name}, so {value} has no effect; set {name} to {MOMENTUM}")


class AdamConfig(_Optim):
    """Adam or AdamW. Adam adds weight decay to the gradient; AdamW subtracts weight decay from the weights."""

    betas: tuple[Beta, Beta] = (MOMENTUM, 0.999)
    "decay of the average gradient, and of the average squared gradient"
    eps: float = Field(default=1e-8, gt=0, le=1, description="added to the root of the average squared gradient")
    name: Literal["adam", "adamw"]

    @model_validator(mode="after")
    def _check_betas(self) -> Self:
        self._require_unchanged_by_schedule("the first value of betas", self.betas[0])
        return self


class SgdConfig(_Optim):
    """SGD with momentum."""

    name: Literal["sgd"]
    momentum: float = Field(default=MOMENTUM, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0, but momentum is 0; set momentum, or omit nesterov")
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
    """Return the keys of the values that ``optimizer``, from ``make_optimizer``, stores for each parameter."""
    if isinstance(optimizer, torch.optim.SGD):
        return frozenset({"momentum_buffer"} if optimizer.defaults["momentum"] else ())
    return frozenset({"step", "exp_avg", "exp_avg_sq"})


def make_scheduler(config: AdamConfig | SgdConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Return the learning-rate schedule of a run of ``steps`` steps. Call the schedule's ``step`` after each step.

    ``constant`` keeps lr. ``cosine`` falls from lr to 0. ``milestones`` multiplies lr by ``gamma`` at each milestone.
    ``onecycle`` is torch's: from lr / 25 up to lr at 30 % of the steps, then down to lr / 250,000. The momentum
    (or Adam's first beta) falls while lr rises. The other schedules may begin with a warm-up, see ``_factor``.
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
    """Return the factor that multiplies lr in ``step``, counted from 0, of a run of ``steps`` steps.

    The learning rates of a warm-up of w steps are lr / (w + 1), 2 lr / (w + 1) and so on, until lr after the warm-up.
    The cosine covers the steps after the warm-up. Milestones are fractions of the whole run.
    """
    warm = math.ceil(round(config.warmup * steps, 6))  # 0.07 · 100 is a little more than 7
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2
    passed = sum(step / steps >= milestone for milestone in config.milestones)
    return (GAMMA if config.gamma is None else config.gamma) ** passed
