"""A run's configuration: YAML in, one frozen value out; unknown keys are refused with the nearest known one."""

from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from distill.augment import AugmentConfig
from distill.config.overrides import lay_over
from distill.data.config import DataConfig, SupervisedDataConfig
from distill.errors import DistillError
from distill.optim import OptimConfig
from distill.runtime.compile import Compile
from distill.runtime.precision import PrecisionChoice
from distill.targets.losses import LossConfig, TemperedLossConfig
from distill.targets.teacher import TeacherConfig
from distill.weights.files import MeanTriple, StdTriple
from manifests.support.field_values import HomePath, read_counts
from manifests.support.validation import describe
from manifests.support.yaml_core import dump_yaml, parse_yaml


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _NetworkGroup(_Group):
    arch: Annotated[str, Field(description="network name, see distill.models")]
    bn_momentum: Annotated[
        float | None,
        Field(gt=0, le=1, description="share of each batch in the batch norms' statistics; default: the network's"),
    ] = None
    bn_eps: Annotated[
        float | None, Field(gt=0, le=1, description="added to the batch norms' variance; default: the network's")
    ] = None

    def described(self) -> dict[str, Any]:
        """What a weight file says of such a network: ``arch``, and ``bn_eps`` where it is set."""
        return {"arch": self.arch} | ({} if self.bn_eps is None else {"bn_eps": self.bn_eps})


class StudentConfig(_NetworkGroup):
    """The network that learns; classes and normalisation are its teacher's."""


def _on_or_off(value: Any) -> Any:
    """YAML reads a bare ``on`` or ``off`` as a truth value."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TrainConfig(_Group):
    """How long, and in which arithmetic. Give ``samples`` or ``epochs``."""

    samples: Annotated[int | None, Field(ge=1, le=10**15, description="patches seen in all")] = None
    epochs: Annotated[float | None, Field(gt=0, le=10**7, description="times the set is seen")] = None
    precision: Annotated[
        PrecisionChoice,
        Field(description="half where the device computes in it, unless told; the student's weights are fp32"),
    ] = "auto"
    compile: Annotated[
        Compile,
        BeforeValidator(_on_or_off),
        Field(description="both networks on a GPU and in long runs, unless told"),
    ] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**53, description="of the first weights, and of the view")] = 0
    ema: Annotated[
        float | None, Field(gt=0, lt=1, description="decay a step of an average of the weights, which is the result")
    ] = None
    checkpoint_seconds: Annotated[float, Field(gt=0, description="time between checkpoints")] = 120.0
    log_steps: Annotated[int, Field(ge=1, description="steps between lines of metrics.jsonl")] = 50
    tensorboard: Annotated[
        bool, Field(description="also log for TensorBoard, in the run directory's tensorboard/; it must be installed")
    ] = False

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.samples is None) == (self.epochs is None):
            raise ValueError("give either samples or epochs")
        return self

    def steps(self, n: int, batch_size: int) -> int:
        """Whole batches in the asked number of samples, with ``n`` an epoch.

        Raises:
            DistillError: there is none.
        """
        samples = self.samples if self.samples is not None else round(float(self.epochs or 0) * n)
        if samples < batch_size:
            raise DistillError(
                f"{samples} sample{'s are' if samples != 1 else ' is'} under one batch of {batch_size}; "
                "raise train.samples or lower data.batch_size"
            )
        return samples // batch_size


class EvalConfig(_Group):
    """Labelled data that judges the networks; it never trains them."""

    data: Annotated[HomePath | None, Field(description="--eval sets it")] = None
    every: Annotated[int, Field(ge=0, description="samples between evaluations; 0: at the end only")] = 0


class PaperConfig(_Group):
    """What a publication reports for this config, for reports to show beside what a run reached; nothing else."""

    source: Annotated[str, Field(max_length=200, description="publication and table")]
    samples: Annotated[int | None, Field(ge=1, le=2**53, description="that its student saw")] = None
    teacher_top1: Annotated[float | None, Field(ge=0, le=100, description="percent")] = None
    student_alone_top1: Annotated[float | None, Field(ge=0, le=100, description="percent, trained from labels")] = (
        None
    )
    full_set_top1: Annotated[float | None, Field(ge=0, le=100, description="percent, from the training set")] = None
    one_image_top1: Annotated[float | None, Field(ge=0, le=100, description="percent, from one image")] = None


class _Run(_Group):
    command: ClassVar[str]

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that ``parse_config`` reads back to an equal value."""
        return dump_yaml(self.model_dump(mode="json", exclude_none=True))


class Config(_Run):
    """Everything a distillation needs, grouped by the component that uses it."""

    command = "distill train"
    teacher: TeacherConfig
    student: StudentConfig
    loss: LossConfig = TemperedLossConfig(name="kl")
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig
    data: DataConfig = DataConfig()
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    paper: PaperConfig | None = None


class NetworkConfig(_NetworkGroup):
    """The network that is taught from labels."""

    num_classes: Annotated[int, Field(ge=2, le=100_000)]
    mean: Annotated[MeanTriple | None, Field(description="of RGB in [0, 1]; default: the training images'")] = None
    std: Annotated[StdTriple | None, Field(description="of RGB in [0, 1]; default: the training images'")] = None


class LabelConfig(_Group):
    """How labels become targets of cross-entropy."""

    smoothing: Annotated[float, Field(ge=0, lt=1, description="spread evenly over all classes")] = 0.0


class SupervisedAugmentConfig(AugmentConfig):
    """As for distillation, but nothing is mixed unless asked for."""

    cutmix_alpha: Annotated[
        float, Field(ge=0, le=1000, description="CutMix with its area from Beta(alpha, alpha); 0 switches it off")
    ] = 0.0


class SupervisedConfig(_Run):
    """Everything ``distill train-teacher`` needs."""

    command = "distill train-teacher"
    network: NetworkConfig
    labels: LabelConfig = LabelConfig()
    augment: SupervisedAugmentConfig = SupervisedAugmentConfig()
    optim: OptimConfig
    data: SupervisedDataConfig = SupervisedDataConfig()
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    paper: PaperConfig | None = None


C = TypeVar("C", bound=_Run)


def parse_config(text: str, where: str, overrides: dict[str, Any], model: type[C]) -> C:
    """Parse YAML text as a config of type ``model``, with ``overrides`` of dotted keys such as ``optim.lr``.

    ``where`` is what errors call it: its packaged name, or its file as the user gave it.

    Raises:
        DistillError: not YAML, or a key missing, unknown or ill-typed; unknown ones get the nearest known. Or the
            overrides contradict themselves.
    """
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise DistillError(f"config {where}: {error}") from error
    if not isinstance(value, dict):
        raise DistillError(f"config {where}: holds {type(value).__name__}, expected groups such as 'teacher'")
    other = next(kind for kind in (Config, SupervisedConfig) if kind is not model)
    if not value.keys() <= model.model_fields.keys() and value.keys() <= other.model_fields.keys():
        raise DistillError(f"config {where}: is a config of {other.command}; this is {model.command}")
    lay_over(value, overrides)
    try:
        return model.model_validate(read_counts(value, model))
    except ValidationError as error:
        raise DistillError(f"config {where}: {describe(error, model)}") from error
