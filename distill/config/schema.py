"""The configs of ``distill train`` and ``distill train-teacher``: YAML in, one frozen value out.

The groups ``teacher``, ``loss``, ``augment``, ``optim`` and ``data`` are defined beside the component that uses them.
"""

from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from distill.augment.config import AugmentConfig, SupervisedAugmentConfig
from distill.config.overrides import apply_settings
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
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class _NetworkGroup(_Group):
    arch: str = Field(description="network name, see distill.models")
    bn_momentum: float | None = Field(default=None, gt=0, le=1)
    "share of each batch in the batch norms' statistics; default: the network's"
    bn_eps: float | None = Field(default=None, gt=0, le=1)
    "added to the batch norms' variance; default: the network's"

    def described(self) -> dict[str, Any]:
        """Return what a weight file records of such a network: ``arch``, and ``bn_eps`` where it is set."""
        return {"arch": self.arch} | ({} if self.bn_eps is None else {"bn_eps": self.bn_eps})


class StudentConfig(_NetworkGroup):
    """The network that learns; its classes and normalization are its teacher's."""


def _on_or_off(value: Any) -> Any:
    """Return the text ``on`` or ``off`` that YAML read as a bool."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class TrainConfig(_Group):
    """How long to train, and in which precision. Give ``samples`` or ``epochs``."""

    samples: int | None = Field(default=None, ge=1, le=10**15, description="training samples in all")
    epochs: float | None = Field(default=None, gt=0, le=10**7, description="passes over the training set")
    precision: PrecisionChoice = "auto"
    "auto: 16 bits where the device supports it; the student's weights are fp32"
    compile: Annotated[Compile, BeforeValidator(_on_or_off)] = "auto"
    "torch.compile of both networks; auto: on a GPU, in long runs"
    seed: int = Field(default=0, ge=0, lt=2**53, description="of initial weights, sample order and augmentation")
    ema: float | None = Field(default=None, gt=0, lt=1)
    "decay a step of a moving average of the weights, which is then the result"
    checkpoint_seconds: float = Field(default=120.0, gt=0, description="seconds between checkpoints")
    log_steps: int = Field(default=50, ge=1, description="steps between lines of metrics.jsonl")
    tensorboard: bool = False
    "also log to tensorboard/ in the run directory; TensorBoard must be installed"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.samples is None) == (self.epochs is None):
            raise ValueError("give either samples or epochs")
        return self

    def steps(self, n: int, batch_size: int) -> int:
        """Return the number of steps: whole batches in the run's samples, where an epoch has ``n`` samples."""
        samples = self.num_samples(n)
        if samples < batch_size:
            found = f"{samples} sample{'s are' if samples != 1 else ' is'} under one batch of {batch_size}"
            raise DistillError(f"{found}; raise train.samples or lower data.batch_size")
        return samples // batch_size

    def num_samples(self, n: int) -> int:
        """Return the number of samples of the run, where an epoch has ``n``."""
        return self.samples if self.samples is not None else round(float(self.epochs or 0) * n)


class EvalConfig(_Group):
    """Labelled data to evaluate the networks on; it is never trained on."""

    data: HomePath | None = Field(default=None, description="folder or file of labelled images; --eval sets it")
    every: int = Field(default=0, ge=0, description="samples between evaluations; 0: at the end only")


class PaperConfig(_Group):
    """What a publication reports for this config; reports show it beside the run's result."""

    source: str = Field(max_length=200, description="publication and table")
    samples: int | None = Field(default=None, ge=1, le=2**53, description="training samples of its student")
    teacher_top1: float | None = Field(default=None, ge=0, le=100, description="percent")
    student_alone_top1: float | None = Field(default=None, ge=0, le=100, description="percent, trained from labels")
    full_set_top1: float | None = Field(default=None, ge=0, le=100, description="percent, from the training set")
    one_image_top1: float | None = Field(default=None, ge=0, le=100, description="percent, from one image")


class _Run(_Group):
    command: ClassVar[str]

    def to_yaml(self) -> str:
        """Return the resolved config as YAML that ``parse_config`` reads back to an equal value."""
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
    """The network that is trained from labels."""

    num_classes: int = Field(ge=2, le=100_000, description="outputs of the network")
    mean: MeanTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the training images'")
    std: StdTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the training images'")


class LabelConfig(_Group):
    """How labels become targets of the cross-entropy."""

    smoothing: float = Field(default=0.0, ge=0, lt=1, description="spread evenly over all classes")


class SupervisedConfig(_Run):
    """Everything a supervised run needs, grouped by the component that uses it."""

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

    ``where`` names the config in errors: its packaged name, or its file as the user gave it.
    """
    try:
        value = parse_yaml(text)
        if not isinstance(value, dict):
            raise DistillError(f"config {where}: holds {type(value).__name__}, expected groups such as 'teacher'")
        other = next(kind for kind in (Config, SupervisedConfig) if kind is not model)
        if not value.keys() <= model.model_fields.keys() and value.keys() <= other.model_fields.keys():
            raise DistillError(f"config {where}: is a config of {other.command}; this is {model.command}")
        apply_settings(value, overrides)
        return model.model_validate(read_counts(value, model))
    except ValidationError as error:
        raise DistillError(f"config {where}: {describe(error, model)}") from error
    except ValueError as error:
        raise DistillError(f"config {where}: {error}") from error
