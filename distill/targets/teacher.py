"""The config of the teacher, and the teacher's network. Loading the network runs no code of the weight file."""

import dataclasses
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from distill.errors import DistillError
from distill.weights.files import MeanTriple, Metadata, StdTriple, Triple, Weights, load_weights
from distill.weights.load import build_filled
from manifests.format.digest import file_digest
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Metadata):
    """A network in eval mode, loaded from a weight file. Architecture, classes, mean and std are always set."""

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
    weights: Weights, arch: str, num_classes: int, given: Given, device: torch.device, prefix: str
) -> Network:
    """Return the network of ``weights`` in eval mode on ``device``.

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
    known |= {"arch": arch, "num_classes": num_classes}
    return Network(path=weights.path, sha256=file_digest(weights.path), model=model, **known)
