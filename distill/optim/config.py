"""Configs of optimizers and learning-rate schedules: the ``optim`` group of a config."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from torch import nn
from torch.optim import Optimizer

from distill.optim.own import make_own_optimizer
from manifests.support.user_code import NAME_PATTERN

Fraction = Annotated[float, Field(gt=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Value = bool | int | float | str | None
Arguments = dict[str, Value | list[Value]]
Groups = list[dict[str, Any]]
"""Groups of parameters as torch's optimizers take them: each has ``params`` and values that differ in this group."""
MOMENTUM, GAMMA = 0.9, 0.1
MAX_ACCUMULATE = 65_536
SCHEDULES = ("constant", "cosine", "linear", "onecycle", "milestones")
OWN_NAME = "package.module:function"

UNUSABLE = frozenset({"Optimizer", "LBFGS", "SparseAdam"})
"""Classes of torch.optim that no run can use: a base class, one that computes the loss of a step several times, and
one for sparse gradients."""
TORCH_NAMES = tuple(
    name
    for name, item in sorted(vars(torch.optim).items())
    if isinstance(item, type) and issubclass(item, Optimizer) and name not in UNUSABLE | {"Muon"}
)
REFUSED = frozenset({"params", "capturable", "differentiable"})
"""Arguments of torch's optimizers that this training loop sets itself or that have no use in it."""
if TYPE_CHECKING:
    TorchName = str
else:
    TorchName = Literal[TORCH_NAMES]


def is_own(name: str) -> bool:
    """Return whether ``name`` has the form ``package.module:function`` of code of the user."""
    return re.match(NAME_PATTERN, name) is not None


def _check_schedule_name(name: str) -> str:
    if name not in SCHEDULES and not is_own(name):
        near = difflib.get_close_matches(name, SCHEDULES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "set one of them"
        raise ValueError(f"is {name[:60]!r}, expected one of {', '.join(SCHEDULES)}, or {OWN_NAME}; {hint}")
    return name


_SCHEDULE_SCHEMA = {"type": "string", "enum": [*SCHEDULES, OWN_NAME]}
ScheduleName = Annotated[str, AfterValidator(_check_schedule_name), WithJsonSchema(_SCHEDULE_SCHEMA)]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class _Optim(_Keys):
    lr: float = Field(gt=0, description="learning rate; with onecycle, the highest learning rate")
    weight_decay: float = Field(default=0.0, ge=0)
    no_decay: Literal["norms_and_biases"] | None = None
    "parameters without weight decay: all that have one dimension"
    clip_norm: float | None = Field(default=None, gt=0)
    "largest norm of the gradient of all parameters together; a longer gradient is scaled down to it"
    accumulate: Annotated[int | None, AfterValidator(lambda value: None if value == 1 else value)] = Field(
        default=None, ge=1, le=MAX_ACCUMULATE
    )
    "parts in which the student computes each batch, to save memory; default 1"
    schedule: ScheduleName = "constant"
    "change of lr: constant, half a cosine to 0, a line to 0, torch's one cycle, drops at milestones, or yours"
    schedule_arguments: Arguments | None = None
    "arguments of a schedule of yours"
    milestones: tuple[Fraction, ...] = Field(default=(), max_length=100)
    "fractions of the run at which schedule milestones multiplies lr by gamma"
    gamma: float | None = Field(default=None, gt=0, lt=1, description=f"factor at each milestone; default {GAMMA}")
    warmup: float = Field(default=0.0, ge=0, le=10**15)
    "fraction of the run, or number of samples, in which lr first rises linearly; not with onecycle"

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule_arguments is not None and not is_own(self.schedule):
            found = f"schedule_arguments need a schedule of yours, but schedule is {self.schedule}"
            raise ValueError(f"{found}; omit schedule_arguments")
        if self.schedule != "milestones" and (self.milestones or self.gamma is not None):
            key = "milestones" if self.milestones else "gamma"
            raise ValueError(f"{key} needs the schedule milestones, but schedule is {self.schedule}; omit {key}")
        if self.schedule == "milestones" and not self.milestones:
            raise ValueError("schedule milestones needs the key milestones; set milestones, such as [0.5, 0.75]")
        if list(self.milestones) != sorted(set(self.milestones)):
            found = f"milestones are {list(self.milestones)}, expected increasing fractions of the run"
            raise ValueError(f"{found}; sort the milestones, and keep one of equal milestones")
        if self.warmup > 1 and not self.warmup.is_integer():
            found = f"warmup is {self.warmup}, expected a fraction of the run below 1 or a whole number of samples"
            raise ValueError(f"{found}; set one of them")
        if self.milestones and self.milestones[0] < self.warmup < 1:
            first = self.milestones[0]
            raise ValueError(f"the first milestone is {first}, but warmup is {self.warmup}; lower warmup to {first}")
        if self.schedule == "onecycle" and self.warmup:
            raise ValueError("schedule onecycle already has a warm-up; omit warmup")
        return self

    @model_validator(mode="after")
    def _check_decay(self) -> Self:
        if self.no_decay and not self.weight_decay:
            raise ValueError("no_decay has no effect, because weight_decay is 0; set weight_decay, or omit no_decay")
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

    def make(self, groups: Groups) -> Optimizer:
        """Return the fused optimizer for the parameters in ``groups``."""
        make = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": True}
        return make(groups, betas=self.betas, eps=self.eps, **options)


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

    def make(self, groups: Groups) -> Optimizer:
        """Return the fused optimizer for the parameters in ``groups``."""
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": True}
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov, **options)


class TorchConfig(_Optim):
    """Any other optimizer of torch, by the name of its class in torch.optim."""

    name: TorchName
    arguments: Arguments = {}
    "arguments of the class, except lr and weight_decay; default: torch's values"

    @model_validator(mode="after")
    def _check_arguments(self) -> Self:
        require_arguments(self.name, self.arguments, "arguments", self.make, {"weight_decay": self.weight_decay})
        return self

    def make(self, groups: Groups) -> Optimizer:
        """Return the optimizer for the parameters in ``groups``."""
        return make_torch_optimizer(self.name, groups, self.lr, self.weight_decay, self.arguments)


class PartnerConfig(_Keys):
    """The optimizer of the parameters that Muon does not change."""

    name: TorchName = "AdamW"
    "class of torch.optim"
    lr: float | None = Field(default=None, gt=0, description="default: optim.lr")
    weight_decay: float | None = Field(default=None, ge=0, description="default: optim.weight_decay")
    arguments: Arguments = {}
    "arguments of the class, except lr and weight_decay; default: torch's values"


class MuonConfig(_Optim):
    """Muon for matrices and flattened convolutions, and a partner for all other parameters."""

    name: Literal["Muon"]
    arguments: Arguments = {}
    "arguments of torch.optim.Muon, except lr and weight_decay; default: torch's values"
    partner: PartnerConfig = PartnerConfig()

    @model_validator(mode="after")
    def _check_arguments(self) -> Self:
        if not hasattr(torch.optim, "Muon"):
            found = f"Muon needs torch 2.9 or later, but torch {torch.__version__} is installed"
            raise ValueError(f"{found}; install a later torch, or choose another optim.name")
        require_arguments("Muon", self.arguments, "arguments", self.make, {})
        partner = self.partner
        decay = {"weight_decay": partner.weight_decay or 0.0}
        require_arguments(partner.name, partner.arguments, "partner.arguments", self.make_partner, decay)
        return self

    def make(self, groups: Groups) -> Optimizer:
        """Return torch's Muon for the matrices (A, B) in ``groups``."""
        return make_torch_optimizer("Muon", groups, self.lr, self.weight_decay, self.arguments)

    def make_partner(self, groups: Groups) -> Optimizer:
        """Return the optimizer for the parameters in ``groups`` that Muon does not change."""
        partner = self.partner
        lr = self.lr if partner.lr is None else partner.lr
        decay = self.weight_decay if partner.weight_decay is None else partner.weight_decay
        return make_torch_optimizer(partner.name, groups, lr, decay, partner.arguments)


class OwnConfig(_Optim):
    """An optimizer of yours. ``name: package.module:callable`` is short for ``name: function`` with ``function``."""

    name: Literal["function"]
    function: str = Field(pattern=NAME_PATTERN, max_length=400, description=OWN_NAME)
    arguments: Arguments = {}
    "arguments of the function or class, except lr and weight_decay"

    def make(self, groups: Groups) -> Optimizer:
        """Return the optimizer for the parameters in ``groups``. It gets weight_decay only if that is not 0."""
        decay = {"weight_decay": self.weight_decay} if self.weight_decay else {}
        return make_own_optimizer(self.function, groups, {"lr": self.lr} | decay | self.arguments)


def name_own(value: Any) -> Any:
    """Return a group ``optim`` in which the name ``package.module:callable`` is ``function``'s value."""
    name = value.get("name") if isinstance(value, dict) else None
    return value | {"name": "function", "function": name} if isinstance(name, str) and ":" in name else value


OptimConfig = Annotated[
    AdamConfig | SgdConfig | MuonConfig | TorchConfig | OwnConfig,
    Field(discriminator="name"),
    BeforeValidator(name_own),
]


def make_torch_optimizer(
    name: str, groups: Groups, lr: float, weight_decay: float, arguments: Mapping[str, Any]
) -> Optimizer:
    """Return the optimizer ``name`` of torch.optim. A class without weight decay does not get ``weight_decay``."""
    decay = {"weight_decay": weight_decay} if "weight_decay" in _parameters(name) else {}
    optimizer: Optimizer = getattr(torch.optim, name)(groups, lr=lr, **decay, **arguments)
    return optimizer


def require_arguments(
    name: str, arguments: Arguments, key: str, make: Callable[[Groups], Optimizer], own: Mapping[str, float]
) -> None:
    """Check the ``arguments`` of the optimizer ``name`` of torch.optim, which the config has at ``key``.

    ``own`` are keys of the config that only some classes have, with values. ``make`` makes the optimizer; a step on a
    small matrix shows whether torch accepts the values.

    Raises:
        ValueError: the class does not have an argument, or refuses a value.
    """
    known = sorted(_parameters(name) - REFUSED - {"lr", "weight_decay"})
    for argument in arguments:
        if argument in ("lr", "weight_decay"):
            raise ValueError(f"{key}.{argument}: this value has a key of its own; set {argument} beside arguments")
        if argument not in known:
            near = difflib.get_close_matches(argument, known, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected some of {', '.join(known)}"
            raise ValueError(f"{key}.{argument}: torch.optim.{name} has no such argument for a run; {hint}")
    if own.get("weight_decay") and "weight_decay" not in _parameters(name):
        raise ValueError(f"torch.optim.{name} has no weight decay; omit weight_decay, or choose another name")
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    try:
        make([{"params": [parameter]}]).step()
    except Exception as error:  # torch checks values in many ways, some of them in the first step
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise ValueError(f"torch.optim.{name} refuses a value of {key}: {reason}; correct {key}") from error


def _parameters(name: str) -> frozenset[str]:
    return frozenset(inspect.signature(getattr(torch.optim, name)).parameters)
