"""The group ``teacher`` of a config: one teacher, or several whose logits or losses are combined."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.models.arch import ARGUMENTS, MAX_LETTERS, fold_arguments
from distill.models.pretrained import Interpolation
from distill.weights.files import MeanTriple, StdTriple
from manifests.support.validation import HomePath

Combine = Literal["logits", "probabilities", "losses"]
_ARCH = "network name, see docs/distill.md, Networks"
_WEIGHTS = "the teacher's weight file, or 'pretrained' for those of its library; --teacher sets it"
_SIZE = "pixels a side of the teacher's images; default: that of the library's weights, else the student's"
_INTERPOLATION = "how images are resized for the teacher, with antialiasing; default: the library's, else bilinear"
_OTHERS = "further teachers, each a group with arch, weights, weight, num_classes, mean, std, size and so on"
_CLASSES = "text file with the class names, one a line, in the order of the teacher's logits"


class OtherTeacherConfig(BaseModel):
    """A further teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    arch: str = Field(max_length=MAX_LETTERS, description=_ARCH)
    weights: HomePath | None = Field(default=None, description=_WEIGHTS.partition(";")[0])
    num_classes: int | None = Field(default=None, ge=2, le=100_000, description="default: teacher.num_classes")
    mean: MeanTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the weight file's mean")
    std: StdTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the weight file's std")
    size: int | None = Field(default=None, ge=8, le=1024, description=_SIZE)
    interpolation: Interpolation | None = Field(default=None, description=_INTERPOLATION)
    classes: HomePath | None = Field(default=None, description=_CLASSES)
    weight: float | None = Field(default=None, gt=0, le=1e6, description="share of this teacher; default: 1")
    arch_arguments: dict[str, Any] | None = Field(default=None, description=ARGUMENTS)
    _fold = model_validator(mode="before")(fold_arguments)


class TeacherConfig(BaseModel):
    """The teacher network. ``mean`` and ``std`` may be omitted if the weight file or the library declares them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    arch: str = Field(max_length=MAX_LETTERS, description=_ARCH)
    weights: HomePath | None = Field(default=None, description=_WEIGHTS)
    logits: HomePath | None = Field(default=None, description="folder of stored logits; --teacher-logits sets it")
    num_classes: int = Field(ge=2, le=100_000)
    mean: MeanTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the weight file's mean")
    std: StdTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the weight file's std")
    min_top1: float | None = Field(default=None, ge=0, le=100, description="least top-1 on evaluation data, percent")
    size: int | None = Field(default=None, ge=8, le=1024, description=_SIZE)
    interpolation: Interpolation | None = Field(default=None, description=_INTERPOLATION)
    classes: HomePath | None = Field(default=None, description=_CLASSES)
    weight: float | None = Field(default=None, gt=0, le=1e6, description="share of this teacher; default: 1")
    others: tuple[OtherTeacherConfig, ...] | None = Field(default=None, description=_OTHERS)
    combine: Combine | None = Field(default=None, description="mean over several teachers of these; default: logits")
    arch_arguments: dict[str, Any] | None = Field(default=None, description=ARGUMENTS)
    _fold = model_validator(mode="before")(fold_arguments)

    @model_validator(mode="after")
    def _several(self) -> "TeacherConfig":
        if not self.others and (self.combine or self.weight):
            raise ValueError("combine and weight are of several teachers; add teacher.others, or omit them")
        return self
