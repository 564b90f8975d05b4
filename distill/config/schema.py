"""The configs of ``distill train`` and ``distill train-teacher``, which are parsed from YAML.

The groups ``teacher``, ``loss``, ``augment``, ``optim`` and ``data`` are defined in the module that uses the group.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from distill.augment.config import AugmentConfig, SupervisedAugmentConfig
from distill.config.overrides import apply_settings
from distill.data.config import DataConfig, SupervisedDataConfig
from distill.data.fit import Transform
from distill.errors import DistillError, with_action
from distill.evaluation import SET_NAME
from distill.models.arch import ARGUMENTS, MAX_LETTERS, fold_arguments
from distill.optim.config import OptimConfig
from distill.runtime.compile import Compile
from distill.runtime.device import PrecisionChoice
from distill.targets.losses import Losses, TemperedLossConfig
from distill.targets.teacher_config import TeacherConfig
from distill.weights.files import MeanTriple, StdTriple
from manifests.support.counts import counted
from manifests.support.validation import HomePath, describe, read_counts
from manifests.support.yaml_core import dump_yaml, parse_yaml


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class _NetworkGroup(_Group):
    arch: str = Field(max_length=MAX_LETTERS, description="network name, see docs/distill.md, Networks")
    bn_momentum: float | None = Field(default=None, gt=0, le=1)
    "share of each batch in the statistics of batch norms; default: the network's own value"
    bn_eps: float | None = Field(default=None, gt=0, le=1)
    "added to the variance in batch norms; default: the network's own value"
    arch_arguments: dict[str, Any] | None = Field(default=None, description=ARGUMENTS)
    _fold = model_validator(mode="before")(fold_arguments)

    def described(self) -> dict[str, Any]:
        """Return the properties of the network that its weight file records: ``arch``, and ``bn_eps`` if set."""
        return {"arch": self.arch} | ({} if self.bn_eps is None else {"bn_eps": self.bn_eps})


class StudentConfig(_NetworkGroup):
    """The student network. The student has the classes of the teacher."""

    mean: MeanTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the teacher's mean")
    std: StdTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the teacher's std")

    init: HomePath | None = None
    "weights to start from: teacher, or a weight file; where depths differ, blocks are chosen evenly"
    head: Literal["teacher"] | None = None
    "teacher: the teacher's last linear layer is copied and not trained"


# A YAML parser may read the words ``on`` and ``off`` as bools.
_ON_OR_OFF = BeforeValidator(lambda value: {True: "on", False: "off"}[value] if isinstance(value, bool) else value)


def _check_snapshots(value: Any) -> Any:
    """Return a number of samples as int, or several as tuple of ints, from values of YAML."""
    if value is None:
        return None
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    whole = all(type(each) in (int, float) and each == each // 1 and 1 <= each <= 10**15 for each in numbers)
    if not (numbers and whole and numbers == sorted(set(numbers))):
        expected = "increasing numbers of samples such as [100000, 200000], or one number N for every N samples"
        raise ValueError(f"is {str(value)[:60]}, expected {expected}; correct the numbers")
    return tuple(map(int, numbers)) if isinstance(value, list | tuple) else int(value)


_SNAPSHOTS_SCHEMA = {"anyOf": [{"type": "array"}, {"type": "integer"}]}


class TrainConfig(_Group):
    """Length and precision of the training. Set ``samples`` or ``epochs``."""

    samples: int | None = Field(default=None, ge=1, le=10**15, description="training samples in total")
    epochs: float | None = Field(default=None, gt=0, le=10**7, description="passes over the training set")
    precision: PrecisionChoice = "auto"
    "auto: 16 bits where the device supports it; the student's weights are fp32"
    compile: Annotated[Compile, _ON_OR_OFF] = "auto"
    "torch.compile of both networks; auto: in long runs on a GPU"
    seed: int = Field(default=0, ge=0, lt=2**53, description="of initial weights, sample order and augmentation")
    ema: float | None = Field(default=None, gt=0, lt=1)
    "decay per step of a moving average of the weights, which becomes the result"
    checkpoint_seconds: float = Field(default=120.0, gt=0, description="seconds between checkpoints")
    log_steps: int = Field(default=50, ge=1, le=10**6, description="steps between lines of metrics.jsonl")
    snapshots: Annotated[Any, BeforeValidator(_check_snapshots), WithJsonSchema(_SNAPSHOTS_SCHEMA)] = None
    "numbers of samples after which the weights are kept in snapshots/; one number N: every N samples"
    tensorboard: bool = False
    "also write metrics to tensorboard/ in the run directory; TensorBoard must be installed"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.samples is None) == (self.epochs is None):
            raise ValueError("expected either samples or epochs; set one of them")
        return self

    def steps(self, n: int, batch_size: int) -> int:
        """Return the number of steps of the run. A step uses one whole batch. An epoch has ``n`` samples."""
        samples = self.num_samples(n)
        if samples < batch_size:
            found = f"the run has {counted(samples, 'sample')}, expected at least one batch of {batch_size} samples"
            raise DistillError(f"{found}; set more train.samples, or a smaller data.batch_size")
        return samples // batch_size

    def num_samples(self, n: int) -> int:
        """Return the number of samples of the run. An epoch has ``n`` samples."""
        return self.samples if self.samples is not None else round(float(self.epochs or 0) * n)


_SetName = Annotated[str, Field(pattern=SET_NAME)]


class EvalConfig(_Group):
    """Labelled images for the evaluation of the networks. No network is trained on these images."""

    data: HomePath | None = Field(default=None, description="folder or file of labelled images; --eval sets it")
    sets: dict[_SetName, HomePath] | None = Field(default=None, min_length=1, max_length=100)
    "further labelled images by name; without data, the first is the main set; --eval NAME=DATA adds one"
    transform: Transform | None = None
    "resize and crop of the images: torchvision or timm (of the network's weights), or given; default: 8/7 and crop"
    every: int = Field(default=0, ge=0, description="samples between evaluations; 0: evaluate only at the end")

    def sources(self) -> dict[str, Path]:
        """Return the paths of all evaluation sets by name, the main set first. The name of ``data`` is empty."""
        return ({} if self.data is None else {"": self.data}) | (self.sets or {})


class PaperConfig(_Group):
    """A published result for this config. Reports compare the published result with the result of the run."""

    source: str = Field(max_length=200, description="publication and table")
    samples: int | None = Field(default=None, ge=1, le=2**53, description="training samples of the published student")
    teacher_top1: float | None = Field(default=None, ge=0, le=100, description="percent")
    student_alone_top1: float | None = Field(default=None, ge=0, le=100, description="percent, trained from labels")
    full_set_top1: float | None = Field(default=None, ge=0, le=100, description="percent, from the training set")
    one_image_top1: float | None = Field(default=None, ge=0, le=100, description="percent, from one image")


class _Run(_Group):
    command: ClassVar[str]

    def to_yaml(self) -> str:
        """Return the complete config as YAML text. ``parse_config`` parses the text to an equal config."""
        return dump_yaml(self.model_dump(mode="json", exclude_none=True))


class Config(_Run):
    """The config of a distillation. Each group of keys configures one component."""

    command = "distill train"
    teacher: TeacherConfig
    student: StudentConfig
    loss: Losses = TemperedLossConfig(name="kl")
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig
    data: DataConfig = DataConfig()
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    paper: PaperConfig | None = None


class NetworkConfig(_NetworkGroup):
    """The network that is trained with labels."""

    num_classes: int = Field(ge=2, le=100_000, description="outputs of the network")
    mean: MeanTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the training images'")
    std: StdTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the training images'")


class LabelConfig(_Group):
    """Conversion of labels to targets of the cross-entropy."""

    smoothing: float = Field(default=0.0, ge=0, lt=1, description="probability that is shared by all classes equally")


class SupervisedConfig(_Run):
    """The config of a supervised training. Each group of keys configures one component."""

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


def parse_config(text: str, where: str, overrides: Mapping[str, Any], model: type[C]) -> C:
    """Parse YAML text as a config of type ``model``, see ``make_config``."""
    return make_config(read_groups(text, where), where, overrides, model)


def read_groups(text: str, where: str) -> dict[str, Any]:
    """Parse YAML text as a dict of groups of keys, which are not checked yet."""
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise DistillError(f"config {where}: {with_action(str(error), 'correct the config')}") from error
    if not isinstance(value, dict):
        raise DistillError(f"config {where}: contains no groups of keys such as 'teacher'; correct the config")
    return value


def make_config(groups: Mapping[str, Any], where: str, overrides: Mapping[str, Any], model: type[C]) -> C:
    """Return the config of type ``model`` with the keys in ``groups``. ``overrides`` maps ``optim.lr`` to a value.

    ``where`` is the name or path of the config, for error messages.
    """
    value = copy.deepcopy(dict(groups))
    try:
        other = next(kind for kind in (Config, SupervisedConfig) if kind is not model)
        if not value.keys() <= model.model_fields.keys() and value.keys() <= other.model_fields.keys():
            found = f"belongs to {other.command}, but this is {model.command}"
            raise DistillError(f"config {where}: {found}; choose another --config")
        apply_settings(value, overrides)
        return model.model_validate(read_counts(value, model))
    except ValueError as error:
        found = describe(error, model) if isinstance(error, ValidationError) else str(error)
        raise DistillError(f"config {where}: {with_action(found, 'correct the config')}") from error
