"""Distillation losses: pure functions that map logits of student and teacher, both (B, classes), to a scalar.

Every loss is averaged over the batch and computed in float32, or in float64 if the logits are float64. The teacher's
logits are constants without a gradient.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag
from torch import Tensor

from distill.errors import DistillError
from distill.models.features import Outputs
from distill.targets.features import FeatureLossConfig, Weight, feature_loss
from distill.user_code import user_code

Loss = Callable[[Tensor, Tensor], Tensor]
Functions = dict[tuple[str, str | None], Callable[..., Tensor]]  # losses of the user, by name and digest


def kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher ‖ student) of softmax(logits / T), averaged over the batch; T is ``temperature``.

    The factor T² keeps the size of the gradient when T changes (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """
    log_q, log_p = _log_softmax(student, temperature), _log_softmax(teacher, temperature)
    return temperature**2 * _divergence(log_p, log_q)


def reverse_kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(student ‖ teacher) of softmax(logits / T), averaged over the batch; T is ``temperature``."""
    log_q, log_p = _log_softmax(student, temperature), _log_softmax(teacher, temperature)
    return temperature**2 * _divergence(log_q, log_p)


def jensen_shannon_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · (KL(p ‖ m) + KL(q ‖ m)) / 2 with m = (p + q) / 2 and T = ``temperature``, averaged over the batch.

    p and q are softmax(logits / T). Without T², the loss is between 0 and ln 2 (Lin 1991, doi 10.1109/18.61115).
    """
    log_q, log_p = _log_softmax(student, temperature), _log_softmax(teacher, temperature)
    log_mean = torch.logaddexp(log_q, log_p) - torch.log(torch.tensor(2.0, dtype=log_q.dtype))
    return temperature**2 * (_divergence(log_p, log_mean) + _divergence(log_q, log_mean)) / 2


def standardised_kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return ``kl_loss`` of logits that are first scaled to mean 0 and deviation 1 over the classes of each sample.

    So the size of the teacher's logits has no influence (Sun et al. 2024, arXiv 2403.01427).
    """
    return kl_loss(_standardise(student), _standardise(teacher), temperature)


def l1_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return |p - q| summed over classes, averaged over the batch; p, q are softmax(logits / ``temperature``)."""
    q, p = _log_softmax(student, temperature).exp(), _log_softmax(teacher, temperature).exp()
    return (p - q).abs().sum(dim=1).mean()


def l2_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return (p - q)² summed over classes, averaged over the batch; p, q are softmax(logits / ``temperature``)."""
    q, p = _log_softmax(student, temperature).exp(), _log_softmax(teacher, temperature).exp()
    return (p - q).square().sum(dim=1).mean()


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference of logits, averaged over classes and batch (Kim 2021, arXiv 2105.08919)."""
    return F.mse_loss(_wide(student), _wide(teacher).detach())


def hard_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cross-entropy of softmax(student) to the teacher's most likely class, averaged over the batch."""
    return F.cross_entropy(_wide(student), teacher.argmax(dim=1))


def cross_entropy(student: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy between softmax(student) and the probabilities ``target``, averaged over the batch."""
    return F.cross_entropy(_wide(student), _wide(target))


TEMPERED: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "kl": kl_loss,
    "reverse-kl": reverse_kl_loss,
    "js": jensen_shannon_loss,
    "standardised-kl": standardised_kl_loss,
    "l1": l1_loss,
    "l2": l2_loss,
}
UNTEMPERED: dict[str, Loss] = {"mse": mse_loss, "hard": hard_loss}


class TemperedLossConfig(BaseModel):
    """A loss between the softmax distributions of student and teacher. Logits are divided by ``temperature``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Literal["kl", "reverse-kl", "js", "standardised-kl", "l1", "l2"]
    temperature: Annotated[float, Field(gt=0, le=1000)] = 8.0
    weight: Weight = 1.0


class UntemperedLossConfig(BaseModel):
    """A loss without a temperature: ``mse`` of logits, or cross-entropy with the teacher's top class (``hard``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Literal["mse", "hard"]
    weight: Weight = 1.0


class FunctionLossConfig(BaseModel):
    """A function of the user: ``function(student_logits, teacher_logits, **arguments)``, the mean over the batch."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Literal["function"]
    function: str = Field(max_length=400, description="package.module:function, allowed by --allow-import PACKAGE")
    arguments: dict[str, JsonValue] | None = Field(default=None, description="arguments of the function, by name")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="digest of its source; recorded")
    weight: Weight = 1.0

    @property
    def key(self) -> tuple[str, str | None]:
        """The function's name and the digest of its source."""
        return self.function, self.sha256


def _with_name(value: Any) -> Any:
    """Add the name to a loss whose keys determine it: ``function``, or the modules ``student`` and ``teacher``."""
    if not isinstance(value, dict):
        return value
    name = "function" if "function" in value else "features" if {"student", "teacher"} & value.keys() else "kl"
    return {"name": name} | value


AnyLossConfig = TemperedLossConfig | UntemperedLossConfig | FunctionLossConfig | FeatureLossConfig
LossConfig = Annotated[
    TemperedLossConfig | UntemperedLossConfig | FunctionLossConfig | FeatureLossConfig,
    Field(discriminator="name"),
    BeforeValidator(_with_name),
]
LossList = Annotated[list[LossConfig], Field(min_length=1, max_length=20)]
Losses = Annotated[
    Annotated[LossConfig, Tag("one")] | Annotated[LossList, Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
"""The group ``loss`` of a config: a loss, or a list of losses whose sum is the loss of the run."""


def terms_of(losses: AnyLossConfig | Sequence[AnyLossConfig]) -> tuple[AnyLossConfig, ...]:
    """Return the losses of the group ``loss``, whose sum is the loss of the run."""
    return tuple(losses) if isinstance(losses, Sequence) else (losses,)


def feature_terms(losses: AnyLossConfig | Sequence[AnyLossConfig]) -> tuple[FeatureLossConfig, ...]:
    """Return the feature losses of the group ``loss``."""
    return tuple(term for term in terms_of(losses) if isinstance(term, FeatureLossConfig))


def own_terms(losses: AnyLossConfig | Sequence[AnyLossConfig]) -> tuple[FunctionLossConfig, ...]:
    """Return the losses of the group ``loss`` that are functions of the user."""
    return tuple(term for term in terms_of(losses) if isinstance(term, FunctionLossConfig))


def make_loss(
    losses: AnyLossConfig | Sequence[AnyLossConfig], functions: Functions | None = None
) -> Callable[[Any, Any], Tensor]:
    """Return the weighted sum of ``losses`` as a function of the outputs of student and teacher.

    Outputs are logits (B, classes) or, with feature losses, a tuple of logits and one feature for each of these
    losses. ``functions`` are the functions of the user that ``losses`` name.
    """
    terms = terms_of(losses)
    of_logits = [_logits_loss(term, functions or {}) for term in terms if not isinstance(term, FeatureLossConfig)]
    features = feature_terms(losses)
    if len(terms) == 1 and of_logits:
        return of_logits[0]

    def loss(student: Tensor | Outputs, teacher: Tensor | Outputs) -> Tensor:
        own, others = (each if isinstance(each, tuple) else (each,) for each in (student, teacher))
        values = [function(own[0], others[0]) for function in of_logits]
        pairs = zip(features, own[1:], others[1:], strict=True)
        values += [term.weight * feature_loss(term.kind, *pair) for term, *pair in pairs]
        return functools.reduce(torch.add, values)

    return loss


def _logits_loss(config: AnyLossConfig, functions: Functions) -> Loss:
    if isinstance(config, FunctionLossConfig):
        if config.key not in functions:
            found = f"the function {config.function} is not known here"
            raise DistillError(f"loss: {found}; start or continue this run with distill.train(..., loss=FUNCTION)")
        function = functions[config.key]
        own = functools.partial(function, **config.arguments) if config.arguments else function
        return checked(own, config.function, config.weight)

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        if isinstance(config, UntemperedLossConfig):
            return config.weight * UNTEMPERED[config.name](student, teacher)
        assert isinstance(config, TemperedLossConfig)  # noqa: S101 - feature losses are not losses of logits
        return config.weight * TEMPERED[config.name](student, teacher.detach(), config.temperature)

    return loss


def checked(function: Loss, name: str, weight: float) -> Loss:
    """Return a loss that calls a function of the user with float32 logits and checks that its result is a scalar.

    The function gets copies of the logits, because other losses and later passes need them unchanged.
    """

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        with user_code(f"loss {name}"):
            value = function(_wide(student).clone(), _wide(teacher).detach().clone())
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point() or not value.requires_grad:
            what = (
                f"a {value.dtype} of shape {tuple(value.shape)}"
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            gradient = " without a gradient" if isinstance(value, Tensor) and not value.requires_grad else ""
            found = f"returned {what}{gradient}, expected a scalar tensor that depends on the student's logits"
            raise DistillError(f"loss {name}: {found}; return the mean over the batch")
        return weight * value

    return loss


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(_wide(logits) / temperature, dim=1)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) for logarithms of probabilities, summed over classes, averaged over the batch."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _standardise(logits: Tensor) -> Tensor:
    wide = _wide(logits)
    return (wide - wide.mean(dim=1, keepdim=True)) / (wide.std(dim=1, keepdim=True) + 1e-7)
