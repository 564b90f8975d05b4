"""Schemas of the files that a report reads from a run directory. Unknown keys are allowed."""

from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.augment.config import AugmentConfig
from distill.config.schema import PaperConfig
from distill.weights.files import MeanTriple, StdTriple


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Figure = Annotated[float, Field(ge=0, le=2**53)]
Counts = list[list[Count]]


class SetFigures(_File):
    """Figures of an evaluation set with a name, in ``summary.json``."""

    student_top1: Percent | None = None
    top1: Percent | None = None
    teacher_top1: Percent | None = None
    agreement: Percent | None = None
    eval_images: Count | None = None


class Summary(_File):
    """``summary.json``. Figures of a student begin with ``student_``; figures of other networks have no prefix."""

    student_top1: Percent | None = None
    student_top5: Percent | None = None
    student_per_class: list[Percent | None] | None = None
    top1: Percent | None = None
    top5: Percent | None = None
    per_class: list[Percent | None] | None = None
    teacher_top1: Percent | None = None
    teacher_per_class: list[Percent | None] | None = None
    agreement: Percent | None = None
    kl_to_teacher: float | None = None
    samples_seen: Count | None = None
    seconds: Figure | None = None
    images_per_second: Figure | None = None
    eval_images: Count | None = None
    eval_sha256: str | None = None
    eval_transform: str | None = None
    evaluations: dict[str, SetFigures] = {}
    size: Count | None = None
    seed: Count | None = None
    weights: str | None = None
    set_id: str | None = None
    data_sha256: str | None = None
    teacher_sha256: str | None = None
    teacher_precision: str | None = None
    config_sha256: str | None = None
    config_sha256_without_seed: str | None = None
    sha256: str | None = None
    environment: dict[str, Any] = {}


class Classes(_File):
    """``classes.json``: class names and confusion matrices."""

    names: list[str]
    label_network: Counts | None = None
    teacher_network: Counts | None = None

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        size = len(self.names)
        for table in (self.label_network, self.teacher_network):
            if table is not None and [len(row) for row in table] != [size] * size:
                raise ValueError(f"a confusion matrix has the wrong size, expected {size} × {size}")
        return self


class SamplePatch(_File):
    """A patch in ``patches.png``. ``corners`` are points (x, y) in pixels of photo number ``source``."""

    key: str
    source: Count | None = None
    corners: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = []


class SamplePatches(_File):
    """``patches.json``: the patches in ``patches.png``, in the order of the picture."""

    patches: list[SamplePatch] = []


class NetworkPart(_File):
    arch: str
    num_classes: Annotated[int, Field(ge=2)] = 2
    mean: Annotated[MeanTriple, Field(strict=False)] | None = None
    std: Annotated[StdTriple, Field(strict=False)] | None = None


class TeacherPart(NetworkPart):
    num_classes: Annotated[int, Field(ge=2)]
    weights: str | None = None
    size: Annotated[int, Field(ge=8, le=1024)] | None = None
    others: list[dict[str, Any]] | None = None


class TrainPart(_File):
    seed: Count


class AugmentPart(AugmentConfig):
    model_config = ConfigDict(extra="allow")


class EvalPart(_File):
    data: str | None = None
    sets: dict[str, str] | None = None


class RunConfig(_File):
    """``config.yaml`` of a run of ``distill train`` or ``distill train-teacher``."""

    teacher: TeacherPart | None = None
    student: NetworkPart | None = None
    network: NetworkPart | None = None
    train: TrainPart
    augment: AugmentPart = AugmentPart(pad_crop=0, flip=False, cutmix_alpha=0)
    eval: EvalPart | None = None
    paper: PaperConfig | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.network is None and (self.teacher is None or self.student is None):
            raise ValueError("no network to train; expected the keys 'teacher' and 'student', or the key 'network'")
        return self

    @property
    def trained(self) -> NetworkPart:
        """The network that is trained."""
        return cast(NetworkPart, self.network or self.student)
