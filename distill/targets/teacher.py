"""The frozen teacher: its config, loaded weights-only, hashed, in eval mode."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
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
class Network:
    """A frozen network from a weight file with SHA-256 ``sha256``; ``mean`` and ``std`` normalize its input.

    ``classes`` are its class names and ``data_sha256`` the digest of the labelled images it was trained on, if the
    file has them; ``bn_eps`` is that of its batch norms, if not the architecture's default.
    """

    path: Path
    model: nn.Module
    arch: str
    num_classes: int
    mean: Triple
    std: Triple
    sha256: str
    classes: tuple[str, ...]
    data_sha256: str | None
    bn_eps: float | None


def load_teacher(config: TeacherConfig, device: torch.device) -> Network:
    """Load and check the teacher that ``config`` names."""
    if config.weights is None:
        raise DistillError("teacher.weights is not set; give the teacher's weight file with --teacher FILE")
    weights = load_weights(config.weights)
    return build_network(weights, config.arch, config.num_classes, (config.mean, config.std), device, "teacher.")


def build_network(
    weights: Weights,
    arch: str,
    num_classes: int,
    given: tuple[Triple | None, Triple | None],
    device: torch.device,
    prefix: str,
) -> Network:
    """Return the network of ``weights`` in eval mode; ``given`` and ``prefix`` are as for ``normalization``."""
    model = build_filled(weights, arch=arch, num_classes=num_classes)
    model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = normalization(weights, *given, prefix=prefix)
    return Network(
        path=weights.path,
        model=model,
        arch=arch,
        num_classes=num_classes,
        mean=mean,
        std=std,
        sha256=file_digest(weights.path),
        classes=weights.classes,
        data_sha256=weights.data_sha256,
        bn_eps=weights.bn_eps,
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
