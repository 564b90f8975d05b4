"""The networks of one or several teachers. Loading a network runs no code of the weight file."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from distill.errors import DistillError
from distill.models.arch import HF, TIMM
from distill.models.own import count_outputs, own_copy
from distill.models.pretrained import (
    InputSettings,
    Interpolation,
    Pretrained,
    declared_input,
    num_outputs,
    pretrained_model,
)
from distill.targets.class_order import class_order, read_class_names
from distill.targets.teacher_config import Combine, OtherTeacherConfig, TeacherConfig
from distill.user_code import name_of
from distill.weights.files import MAX_NAME, Metadata, Triple, Weights, load_weights, tensors_digest
from distill.weights.load import build_filled
from distill.weights.normalization import check_mean, check_std
from manifests.format.digest import file_digest
from manifests.support.counts import counted

PRETRAINED = "pretrained"  # instead of a weight file: the weights that timm, transformers or torchvision publishes
Given = tuple[Triple | None, Triple | None]  # mean and std of RGB in [0, 1]


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
    empty. The module is copied, and runs in eval mode. As a teacher, it gets images of ``size`` px (None: those of
    the student), resized with ``interpolation``: bilinear, bicubic or nearest. ``weight`` is its share among several.
    """

    module: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    classes: Sequence[str] = ()
    size: int | None = None
    interpolation: Interpolation = "bilinear"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the types of all values, and the ranges of mean and std."""
        if not isinstance(self.module, nn.Module):
            found = f"is {type(self.module).__name__}, expected a torch.nn.Module"
            raise DistillError(f"Teacher: the first argument {found}; for a weight file, give its path instead")
        input_triple("mean", self.mean)
        input_triple("std", self.std)
        names = self.classes if isinstance(self.classes, Sequence) and not isinstance(self.classes, str) else [None]
        if bad := [name for name in names if not isinstance(name, str) or len(name) > MAX_NAME]:
            found = f"classes has {str(bad[0])[:40]!r}, expected a list of texts of at most {MAX_NAME} letters"
            raise DistillError(f"Teacher: {found}; give one name for each logit")
        if self.interpolation not in (known := get_args(Interpolation)):
            found = f"interpolation is {str(self.interpolation)[:40]!r}, expected one of {', '.join(known)}"
            raise DistillError(f"Teacher: {found}; correct it")
        if self.size is not None and not (isinstance(self.size, int) and 8 <= self.size <= 1024):
            raise DistillError(f"Teacher: size is {str(self.size)[:40]}, expected 8 to 1024 pixels; correct it")
        if not (isinstance(self.weight, int | float) and 0 < self.weight <= 1e6):
            raise DistillError(f"Teacher: weight is {str(self.weight)[:40]}, expected a number above 0; correct it")

    def network(self, size: int, device: torch.device) -> "Network":
        """Return a copy of the module on ``device``, checked with images of ``size`` px."""
        name, model = name_of(self.module), own_copy(self.module)
        count = count_outputs(model, self.size or size, name)
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
            size=self.size,
            interpolation=self.interpolation,
            weight=self.weight,
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
    # The next fields are those of a teacher.
    size: int | None = None  # pixels a side of its images; None: those of the student
    interpolation: Interpolation = "bilinear"
    order: tuple[int, ...] | None = None  # the number of its logit for each class of the first teacher, if different
    weight: float = 1.0  # among several teachers
    others: tuple["Network", ...] = ()  # further teachers; then ``sha256`` is the digest of all
    combine: Combine = "logits"


def load_teacher(config: TeacherConfig, device: torch.device) -> Network:
    """Load and check the teacher or the teachers that ``config`` describes."""
    first = _load_one(config, config.num_classes, device, "teacher.")
    others = [
        _load_one(each, each.num_classes or config.num_classes, device, f"teacher.others.{number}.")
        for number, each in enumerate(config.others or ())
    ]
    return join_teachers(first, others, config.combine or "logits")


def join_teachers(first: Network, others: Sequence[Network], combine: Combine) -> Network:
    """Return ``first`` with ``others`` as further teachers, whose classes are matched by name."""
    if not others:
        return first
    ordered = []
    for other in others:
        order = (
            class_order(other.classes, first.classes, str(other.path)) if other.classes and first.classes else None
        )
        if order is None and other.num_classes != first.num_classes:
            found = f"has {counted(other.num_classes, 'class')}, but the first teacher has {first.num_classes}"
            action = "give the names of the classes of both teachers with teacher.classes, or choose another teacher"
            raise DistillError(f"{other.path}: {found}; {action}")
        ordered.append(dataclasses.replace(other, order=order))
    parts = [combine, *(f"{each.sha256} {each.weight!r} {_described(each)}" for each in (first, *ordered))]
    sha256 = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return dataclasses.replace(first, sha256=sha256, others=tuple(ordered), combine=combine)


def teacher_size(config: TeacherConfig | OtherTeacherConfig) -> int | None:
    """Return the size of a teacher's images that config or library declare; None if it is that of the student's."""
    published = str(config.weights) == PRETRAINED or (config.weights is None and config.arch.startswith(HF))
    return config.size or (declared_input(config.arch).size if published else None)


def _described(teacher: Network) -> str:
    return f"{teacher.arch} {teacher.mean} {teacher.std} {teacher.size} {teacher.interpolation} {teacher.order}"


def _load_one(
    config: TeacherConfig | OtherTeacherConfig, num_classes: int, device: torch.device, prefix: str
) -> Network:
    """Load a teacher from its weight file, or with the weights of its library. Set the input that it needs."""
    given, declared = (config.mean, config.std), InputSettings()
    if str(config.weights) == PRETRAINED or (config.weights is None and config.arch.startswith(HF)):
        found = pretrained_model(config.arch, num_classes)
        declared, network = found.settings, _published(found, config.arch, num_classes, given, device, prefix)
    elif config.weights is None:
        option = " with --teacher FILE" if prefix == "teacher." else ""
        raise DistillError(f"{prefix}weights is not set; pass the teacher's weight file{option}")
    else:
        weights = load_weights(config.weights)
        if weights.arch is None and config.arch.startswith((TIMM, HF)):
            declared = declared_input(config.arch)
        network = build_network(weights, config.arch, num_classes, given, device, prefix)
    classes = network.classes if config.classes is None else read_class_names(config.classes, num_classes)
    return dataclasses.replace(
        network,
        size=config.size or declared.size,
        interpolation=config.interpolation or declared.interpolation or "bilinear",
        classes=classes,
        weight=config.weight or 1.0,
    )


def load_published(arch: str, given: Given, device: torch.device) -> Network:
    """Return a network with the weights of its library, for an evaluation. ``given`` are mean and std, or None."""
    found = pretrained_model(arch, None)
    network = _published(found, arch, num_outputs(found.model), given, device, "--")
    settings = found.settings
    return dataclasses.replace(network, size=settings.size, interpolation=settings.interpolation or "bilinear")


def _published(
    found: Pretrained, arch: str, num_classes: int, given: Given, device: torch.device, prefix: str
) -> Network:
    """Return a network with the weights of its library. The digest of its weights identifies it."""
    mean, std = given[0] or found.settings.mean, given[1] or found.settings.std
    if mean is None or std is None:
        missing = "mean" if mean is None else "std"
        text = f"{arch}: neither config nor library declares the {missing} of the input"
        raise DistillError(f"{text}; set {prefix}{missing} to the value that the network was trained with")
    sha256, model = tensors_digest(found.model.state_dict()), found.model
    model.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    known: dict[str, Any] = {
        "arch": arch,
        "num_classes": num_classes,
        "mean": mean,
        "std": std,
        "classes": found.classes,
    }
    return Network(path=Path(arch), sha256=sha256, model=model, **known)


def build_network(
    weights: Weights, arch: str | nn.Module, num_classes: int, given: Given, device: torch.device, prefix: str
) -> Network:
    """Return the network of ``weights`` in eval mode on ``device``. If ``arch`` is a module, a copy of it is filled.

    ``given`` are the mean and std that the user set, or None for the values of the weight file. ``prefix``, such as
    "teacher.", precedes the names of the user's settings in messages.
    """
    option = "--arch " if prefix == "--" else f"--set {prefix}arch="
    if weights.arch is None and isinstance(arch, str) and arch.startswith((TIMM, HF)):
        declared = declared_input(arch)
        given = (given[0] or declared.mean, given[1] or declared.std)
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
