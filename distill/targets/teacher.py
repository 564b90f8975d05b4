"""The frozen teacher: its config, loaded weights-only, hashed, in eval mode."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from distill.errors import DistillError
from distill.weights.files import MeanTriple, StdTriple, Triple, Weights, load_weights
from distill.weights.load import build_filled
from distill.weights.normalization import check_mean, check_std
from manifests.format.digest import file_digest
from manifests.support.field_values import HomePath


class TeacherConfig(BaseModel):
    """The teacher network. What its weight file contains need not be given here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    arch: Annotated[str, Field(description="network name, see distill.models")]
    weights: Annotated[HomePath | None, Field(description="its file; --teacher sets it")] = None
    logits: Annotated[HomePath | None, Field(description="folder of its stored logits; --teacher-logits sets it")] = (
        None
    )
    num_classes: Annotated[int, Field(ge=2, le=100_000)]
    mean: Annotated[MeanTriple | None, Field(description="of RGB in [0, 1]; default: the weight file's")] = None
    std: Annotated[StdTriple | None, Field(description="of RGB in [0, 1]; default: the weight file's")] = None
    min_top1: Annotated[float | None, Field(ge=0, le=100, description="percent it must reach on evaluation data")] = (
        None
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """A loaded teacher. ``mean`` and ``std`` normalize the input of teacher and student.

    ``classes`` are its class names, empty where its file has none; ``data_sha256`` is the digest of the images it was
    trained on, if the file has it.
    """

    model: nn.Module
    mean: Triple
    std: Triple
    sha256: str
    classes: tuple[str, ...] = ()
    data_sha256: str | None = None


def load_teacher(config: TeacherConfig, device: torch.device) -> Teacher:
    """Load and check the teacher that ``config`` names."""
    if config.weights is None:
        raise DistillError("teacher.weights is not set; give the teacher's weight file with --teacher FILE")
    weights = load_weights(config.weights)
    model = build_filled(weights, arch=config.arch, num_classes=config.num_classes)
    model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = normalization(weights, config.mean, config.std, prefix="teacher.")
    return Teacher(
        model=model,
        mean=mean,
        std=std,
        sha256=file_digest(config.weights),
        classes=weights.classes,
        data_sha256=weights.data_sha256,
    )


def normalization(weights: Weights, mean: Triple | None, std: Triple | None, *, prefix: str) -> tuple[Triple, Triple]:
    """Return mean and standard deviation of a network's input: those given, or the weight file's.

    ``prefix`` precedes the setting's name in messages.
    """
    chosen = []
    checks: tuple[tuple[str, Triple | None, Triple | None, Callable[[Triple], Triple]], ...] = (
        ("mean", weights.mean, mean, check_mean),
        ("std", weights.std, std, check_std),
    )
    for name, held, given, check in checks:
        if held is not None and given is not None and held != given:
            raise DistillError(
                f"{weights.path}: says its {name} is {held}, but {prefix}{name} is {given}; leave it out"
            )
        value = given if given is not None else held
        if value is None:
            raise DistillError(
                f"{weights.path}: does not say how its input was normalised; "
                f"set {prefix}{name} to the values it was trained with"
            )
        try:
            chosen.append(check(value))
        except ValueError as error:
            raise DistillError(f"{weights.path}: {prefix if held is None else 'its '}{error}") from error
    return chosen[0], chosen[1]
