"""The config of the teacher, and the teacher's network. Loading the network runs no code of the weight file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from distill.errors import DistillError
from distill.models.own import count_outputs, own_copy
from distill.user_code import name_of
from distill.weights.files import MeanTriple, Metadata, StdTriple, Triple, Weights, load_weights, tensors_digest
from distill.weights.load import build_filled
from distill.weights.normalization import check_mean, check_std
from manifests.format.digest import file_digest
from manifests.support.counts import counted
from manifests.support.validation import HomePath

Given = tuple[Triple | None, Triple | None]  # mean and std of RGB in [0, 1]


class TeacherConfig(BaseModel):
    """The teacher network. ``mean`` and ``std`` may be omitted if the weight file declares them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    arch: str = Field(description="network name, see docs/distill.md, Networks")
    weights: HomePath | None = Field(default=None, description="the teacher's weight file; --teacher sets it")
    logits: HomePath | None = Field(default=None, description="folder of stored logits; --teacher-logits sets it")
    num_classes: int = Field(ge=2, le=100_000)
    mean: MeanTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the weight file's mean")
    std: StdTriple | None = Field(default=None, description="of RGB in [0, 1]; default: the weight file's std")
    min_top1: float | None = Field(default=None, ge=0, le=100, description="least top-1 on evaluation data, percent")


def input_triple(name: str, values: Sequence[float]) -> Triple:
    """Return three numbers of a caller, the ``mean`` or ``std`` of RGB in [0, 1], after a check."""
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        found = f"{name} is {str(values)[:80]}, expected three numbers"
        raise DistillError(f"{found}; give one number for each of R, G and B") from error
    try:
        return (check_mean if name == "mean" else check_std)((red, green, blue))
    except ValueError as error:
        raise DistillError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A module of the user as a teacher, or as a network to evaluate.

    ``module`` maps images, float32 (B, 3, H, W), to logits (B, classes). The images are RGB in [0, 1], normalized by
    ``mean`` and ``std`` (three numbers each). ``classes`` are the names of the classes in the order of the logits, or
    empty. The module is copied, and runs in eval mode.
    """

    module: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the types of all values, and the ranges of mean and std."""
        if not isinstance(self.module, nn.Module):
            found = f"is {type(self.module).__name__}, expected a torch.nn.Module"
            raise DistillError(f"Teacher: the first argument {found}; for a weight file, give its path instead")
        input_triple("mean", self.mean)
        input_triple("std", self.std)

    def network(self, size: int, device: torch.device) -> "Network":
        """Return a copy of the module on ``device``, checked with images of ``size`` px."""
        name, model = name_of(self.module), own_copy(self.module)
        count = count_outputs(model, size, name)
        if self.classes and len(self.classes) != count:
            found = f"returns {counted(count, 'logit')}, but classes has {counted(len(self.classes), 'name')}"
            raise DistillError(f"network {name}: {found}; give one name for each logit")
        sha256 = tensors_digest(model.state_dict())
        model.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Network(
            path=Path(name),
            sha256=sha256,
            model=model,
            arch=name,
            num_classes=count,
            mean=input_triple("mean", self.mean),
            std=input_triple("std", self.std),
            classes=tuple(self.classes),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Metadata):
    """A network in eval mode. Architecture, classes, mean and std are always set.

    For a module of the user, ``path`` and ``arch`` are ``MODULE:CLASS``, and ``sha256`` is the digest of its weights.
    """

    path: Path
    sha256: str  # of the weight file, in hex
    model: nn.Module
    arch: str
    num_classes: int
    mean: Triple
    std: Triple


def load_teacher(config: TeacherConfig, device: torch.device) -> Network:
    """Load and check the teacher that ``config`` describes."""
    if config.weights is None:
        raise DistillError("teacher.weights is not set; pass the teacher's weight file with --teacher FILE")
    weights = load_weights(config.weights)
    return build_network(weights, config.arch, config.num_classes, (config.mean, config.std), device, "teacher.")


def build_network(
    weights: Weights, arch: str | nn.Module, num_classes: int, given: Given, device: torch.device, prefix: str
) -> Network:
    """Return the network of ``weights`` in eval mode on ``device``. If ``arch`` is a module, a copy of it is filled.

    ``given`` are the mean and std that the user set, or None for the values of the weight file. ``prefix``, such as
    "teacher.", precedes the names of the user's settings in messages.
    """
    option = "--arch " if prefix == "--" else f"--set {prefix}arch="
    model = build_filled(weights, arch=arch, num_classes=num_classes, option=option)
    model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    known = {field.name: getattr(weights, field.name) for field in dataclasses.fields(Metadata)}
    for name, value in zip(("mean", "std"), given, strict=True):
        own = known[name]
        if own is not None and value is not None and own != value:
            found = f"the file declares {name} {own}, but {prefix}{name} is {value}"
            raise DistillError(f"{weights.path}: {found}; omit {prefix}{name}")
        if own is None and value is None:
            action = f"set {prefix}{name} to the value that the network was trained with"
            action += ", or add it to the file with 'distill convert'" if prefix == "teacher." else ""
            raise DistillError(f"{weights.path}: the file does not declare the {name} of the input; {action}")
        known[name] = own or value
    known |= {"arch": name_of(arch) if isinstance(arch, nn.Module) else arch, "num_classes": num_classes}
    return Network(path=weights.path, sha256=file_digest(weights.path), model=model, **known)
