"""Feature losses: compare the outputs of modules of student and teacher, with learned projections between them."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from distill.errors import DistillError
from distill.models.features import Adapter, WithFeatures, features_of, last_map
from distill.runtime.randomness import Stream
from distill.targets.stored_logits import StoredFeature

Weight = Annotated[float, Field(gt=0, le=10**6, description="factor that multiplies the loss")]


class FeatureLossConfig(BaseModel):
    """A loss between the outputs of a module of the student and a module of the teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    name: Literal["features"]
    student: str | None = Field(default=None, min_length=1, max_length=200)
    "module of the student, such as layer3; default: the last one whose output has several positions"
    teacher: str | None = Field(default=None, min_length=1, max_length=200)
    "module of the teacher; default: as for the student"
    kind: Literal["mse", "cosine", "attention"] = "mse"
    pooled: bool = False
    "compare the means over all positions"
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _has_positions(self) -> Self:
        if self.kind == "attention" and self.pooled:
            raise ValueError("kind attention compares positions, which pooled removes; omit pooled, or use kind mse")
        return self


def feature_loss(kind: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Return the loss of features of one shape: maps (B, C, H, W), tokens (B, N, C) or vectors (B, C).

    It is computed in float32, or in float64 if the features are float64.

    - ``mse``: squared difference, averaged over batch, channels and positions (Romero et al. 2015, arXiv 1412.6550)
    - ``cosine``: 1 - cosine of the channels of each position, averaged over batch and positions
    - ``attention``: squared distance of the attention maps, averaged over the batch. An attention map has the mean
      square of the channels of each position, scaled to length 1 (Zagoruyko & Komodakis 2017, arXiv 1612.03928)
    """
    student, teacher = (x if x.dtype == torch.float64 else x.float() for x in (student, teacher.detach()))
    if kind == "mse":
        return F.mse_loss(student, teacher)
    if kind == "cosine":
        return 1 - F.cosine_similarity(student, teacher, dim=_channel_dim(student)).mean()
    q, p = (F.normalize(x.square().mean(_channel_dim(x)).flatten(1), dim=1) for x in (student, teacher))
    return (q - p).square().sum(dim=1).mean()


def _channel_dim(x: Tensor) -> int:
    return 2 if x.ndim == 3 else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureMatch:
    """Networks for feature losses. Both return logits, and then one feature for each loss, of equal shapes."""

    student: WithFeatures
    adapters: tuple[Adapter, ...]  # of the teacher's features
    stored: tuple[StoredFeature, ...]  # modules of the teacher, and shapes of their adapted outputs for one image

    @property
    def names(self) -> tuple[str, ...]:
        """The modules of the teacher."""
        return tuple(each.module for each in self.stored)


def match_features(
    terms: Sequence[FeatureLossConfig], student: nn.Module, teacher: nn.Module, sizes: tuple[int, int], seed: int
) -> FeatureMatch:
    """Prepare ``student`` and ``teacher`` for feature losses. ``seed`` decides projections.

    ``sizes`` are the sizes of their images in pixels.

    Raises:
        DistillError: a module does not exist, or the features of a loss cannot be compared.
    """
    copied = copy.deepcopy(student).eval()
    names = [term.student or last_map(copied, sizes[0], "student") for term in terms]
    teacher_names = [term.teacher or last_map(teacher, sizes[1], "teacher") for term in terms]
    own = features_of(copied, names, sizes[0], "student")
    others = features_of(teacher, teacher_names, sizes[1], "teacher")
    with torch.random.fork_rng([]):
        torch.manual_seed(Stream(seed, "projections", 0).word() >> 1)
        both = zip(names, teacher_names, strict=True)
        pairs = [_adapters(*each) for each in zip(terms, both, own, others, strict=True)]
    wrapped = WithFeatures(student, names, [pair[0] for pair in pairs])
    adapters = tuple(pair[1] for pair in pairs)
    shapes = [tuple(adapt(each).shape[1:]) for adapt, each in zip(adapters, others, strict=True)]
    stored = [StoredFeature(module=name, shape=shape) for name, shape in zip(teacher_names, shapes, strict=True)]
    return FeatureMatch(student=wrapped, adapters=adapters, stored=tuple(stored))


def _adapters(
    term: FeatureLossConfig, names: tuple[str, str], student: Tensor, teacher: Tensor
) -> tuple[Adapter, Adapter]:
    """Return the adapters of the features of student and teacher, which give the features the same shape.

    ``names`` are their modules.
    """
    what = f"the module {names[0]!r} of the student returns {tuple(student.shape)}"
    what = f"loss: {what}, and {names[1]!r} of the teacher {tuple(teacher.shape)}"
    if term.kind == "attention" and min(student.ndim, teacher.ndim) < 3:
        raise DistillError(f"{what}: kind attention needs positions; choose other modules, or use kind mse")
    pooled = term.pooled or (student.ndim == teacher.ndim == 2)
    tokens_differ = student.ndim == teacher.ndim == 3 and student.shape[1] != teacher.shape[1]
    if not pooled and (student.ndim != teacher.ndim or tokens_differ):
        raise DistillError(f"{what}: their positions do not correspond; set pooled: true, or choose other modules")
    size = None
    if not pooled and student.ndim == 4:
        size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    channels = student.shape[_channel_dim(student)], teacher.shape[_channel_dim(teacher)]
    projection: nn.Module | None = None
    if channels[0] != channels[1] and term.kind != "attention":
        maps = not pooled and student.ndim == 4
        projection = (nn.Conv2d(*channels, 1) if maps else nn.Linear(*channels)).to(student.dtype)
    return Adapter(pooled=pooled, size=size, projection=projection), Adapter(pooled=pooled, size=size)
