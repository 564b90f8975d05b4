"""What the files of a run directory hold, as far as a report reads them; keys it does not know are let through."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distill.config.schema import PaperConfig


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Figure = Annotated[float, Field(ge=0, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]


class Summary(_File):
    """``summary.json``; of a run of labels the network's figures have no prefix."""

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
    """``classes.json``, as ``judge.Verdict`` has it."""

    names: list[str]
    label_network: list[list[Count]] | None = None
    teacher_network: list[list[Count]] | None = None

    @model_validator(mode="after")
    def _square(self) -> Self:
        for table in (self.label_network, self.teacher_network):
            if table is not None and [len(row) for row in table] != [len(self.names)] * len(self.names):
                raise ValueError(f"a table is not {len(self.names)} × {len(self.names)}")
        return self


class Place(_File):
    """A patch of the sheet, and its corners, x and y, in the pixels of photo ``source``, where they are known."""

    key: str
    source: Count | None = None
    corners: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = []


class Places(_File):
    """``patches.json``."""

    patches: list[Place] = []


class NetworkPart(_File):
    """A network of a config."""

    arch: str
    num_classes: Annotated[int, Field(ge=2)] = 2


class TeacherPart(NetworkPart):
    """The teacher of a config."""

    num_classes: Annotated[int, Field(ge=2)]
    weights: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


class TrainPart(_File):
    """The group ``train`` of a config."""

    seed: Count


class AugmentPart(_File):
    """The group ``augment``."""

    resized_crop: list[float] | None = None
    pad_crop: Count = 0
    flip: bool = False
    jitter: dict[str, Any] | None = None
    grayscale: Share = 0
    solarize: Share = 0
    cutmix_alpha: Figure = 0
    mixup_alpha: Figure = 0


class EvalPart(_File):
    """The group ``eval``."""

    data: str | None = None


class RunConfig(_File):
    """``config.yaml``, as far as a report reads it: of a distillation, or of a run of labels."""

    teacher: TeacherPart | None = None
    student: NetworkPart | None = None
    network: NetworkPart | None = None
    train: TrainPart
    augment: AugmentPart = AugmentPart()
    eval: EvalPart | None = None
    paper: PaperConfig | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.network is None and (self.teacher is None or self.student is None):
            raise ValueError("names neither a teacher and a student nor a network")
        return self

    @property
    def learner(self) -> NetworkPart:
        """The network that is trained."""
        found = self.network or self.student
        if found is None:  # the validator let none of these through
            raise TypeError("a run of no network")
        return found
