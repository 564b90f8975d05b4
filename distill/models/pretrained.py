"""Weights that timm, transformers and torchvision publish, and the input for which they trained a network."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torchvision
from torch import nn

from distill.errors import DistillError
from distill.models import PREFIX, build_model, is_auxiliary
from distill.models.arch import HF, TIMM, is_own, split_arch
from distill.models.libraries import LogitsOf, errors, hf_config, hf_source, library, timm_model
from distill.models.limits import few_modules, require_memory
from manifests.support.counts import counted

Interpolation = Literal["bilinear", "bicubic", "nearest"]
_INTERPOLATIONS: dict[str, Interpolation] = {"0": "nearest", "2": "bilinear", "3": "bicubic"}  # numbers of Pillow


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputSettings:
    """The input for which a library trained a network. A value is None if the library does not declare it."""

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None  # pixels
    interpolation: Interpolation | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network with the weights that its library publishes, in eval mode."""

    model: nn.Module
    settings: InputSettings
    classes: tuple[str, ...] = ()


def pretrained_model(arch: str, num_classes: int | None) -> Pretrained:
    """Return a network with the weights of its library, from its cache or the internet, or from a folder.

    If ``num_classes`` is None, the network may have any number of classes.

    Raises:
        DistillError: there are no such weights, they cannot be read, or they have other classes than ``num_classes``.
    """
    name, arguments = split_arch(arch)
    if name.startswith(TIMM):
        found = _pretrained_timm(name, arguments)
    elif name.startswith(HF):
        found = _pretrained_hf(name, arguments)
    elif name.startswith(PREFIX):
        with torch.device("meta"):
            build_model(arch, 2)  # refuses other names, and arguments
        found = _pretrained_torchvision(name)
    elif is_own(name):  # its code loads its weights
        if num_classes is None:
            text = "the number of classes of your code is not known"
            raise DistillError(f"arch {name!r}: {text}; give a weight file, or use distill.evaluate in Python")
        return Pretrained(model=build_model(arch, num_classes).eval(), settings=InputSettings())
    else:
        advice = "give a weight file with teacher.weights"
        raise DistillError(f"arch {name!r}: there are no published weights of this network; {advice}")
    own = num_outputs(found.model)
    if num_classes is not None and own != num_classes:
        text = f"the published weights have {counted(own, 'class')}, but num_classes is {num_classes}"
        raise DistillError(f"arch {name!r}: {text}; set num_classes to {own}, or give a weight file")
    found.model.eval()
    return found


def declared_input(arch: str) -> InputSettings:
    """Return the input for which ``timm/NAME``, ``hf/NAME`` or ``torchvision/NAME`` was trained by its library."""
    name, _ = split_arch(arch)
    if name.startswith(TIMM):
        return _timm_input(library("timm", name).get_pretrained_cfg(name.removeprefix(TIMM)))
    if name.startswith(HF):
        return _hf_input(name)
    if name.startswith(PREFIX):
        with errors(name, "torchvision declares no input"):
            return _torchvision_input(torchvision.models.get_model_weights(name.removeprefix(PREFIX)).DEFAULT)
    return InputSettings()


def _pretrained_timm(name: str, arguments: dict[str, Any]) -> Pretrained:
    model = timm_model(name, arguments, 0, pretrained=True)
    return Pretrained(model=model, settings=_timm_input(getattr(model, "pretrained_cfg", None)))


def _timm_input(declared: Any) -> InputSettings:
    values = declared if isinstance(declared, dict) else {} if declared is None else declared.to_dict()
    size = values.get("input_size") or (3, None, None)
    return _settings(values.get("mean"), values.get("std"), size[-1], values.get("interpolation"))


def _pretrained_hf(name: str, arguments: dict[str, Any]) -> Pretrained:
    transformers = library("transformers", name)
    with errors(name, "its weights cannot be read"), _quiet(transformers):
        config = hf_config(name, arguments)
        source, auto = hf_source(name), transformers.AutoModelForImageClassification
        with few_modules(name), torch.device("meta"):
            require_memory(name, auto.from_config(config, trust_remote_code=False))
        model, info = auto.from_pretrained(source, config=config, trust_remote_code=False, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        found = f"the weights lack the parameter {missing[0]}, so they are not of an image classifier"
        raise DistillError(f"arch {name!r}: {found}; choose a model with a classification head")
    names = [str(label) for _, label in sorted(config.id2label.items())]
    generic = names == [f"LABEL_{number}" for number in range(len(names))] or len(set(names)) < len(names)
    network = LogitsOf(model.float())  # the weights may have 16 bits
    return Pretrained(model=network, settings=_hf_input(name), classes=() if generic else tuple(names))


def _hf_input(name: str) -> InputSettings:
    transformers = library("transformers", name)
    try:
        values = transformers.AutoImageProcessor.from_pretrained(hf_source(name), trust_remote_code=False).to_dict()
    except (OSError, ValueError, ImportError, KeyError):  # the folder has no preprocessor_config.json
        return InputSettings()
    size: Any = values.get("crop_size") or values.get("size") or {}
    size = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    mean, std = (values.get(f"image_{key}") for key in ("mean", "std"))
    if not values.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return _settings(mean, std, size, str(values.get("resample")))


def _pretrained_torchvision(name: str) -> Pretrained:
    with errors(name, "its weights cannot be read"):
        weights: Any = torchvision.models.get_model_weights(name.removeprefix(PREFIX)).DEFAULT
        state = weights.get_state_dict(progress=False, check_hash=True)
    classes = tuple(weights.meta.get("categories", ()))
    model = build_model(name, len(classes))
    model.load_state_dict({key: value for key, value in state.items() if not is_auxiliary(key, name)})
    return Pretrained(model=model, settings=_torchvision_input(weights), classes=classes)


def _torchvision_input(weights: Any) -> InputSettings:
    transform = weights.transforms()
    size, interpolation = transform.crop_size[0], transform.interpolation.value
    return _settings(transform.mean, transform.std, size, interpolation)


def _settings(mean: Any, std: Any, size: Any, interpolation: Any) -> InputSettings:
    known = interpolation if interpolation in _INTERPOLATIONS.values() else _INTERPOLATIONS.get(str(interpolation))
    triples = [
        tuple(map(float, each)) if isinstance(each, list | tuple) and len(each) == 3 else None for each in (mean, std)
    ]
    number = size if isinstance(size, int) and size > 0 else None
    return InputSettings(mean=triples[0], std=triples[1], size=number, interpolation=known)  # type: ignore[arg-type]


def num_outputs(model: nn.Module) -> int:
    """Return the number of classes of a network of timm, transformers or torchvision."""
    if isinstance(model, LogitsOf):
        network: Any = model.network
        return int(network.config.num_labels)
    if isinstance(count := getattr(model, "num_classes", None), int):
        return count
    return next(module.out_features for module in reversed(list(model.modules())) if isinstance(module, nn.Linear))


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Draw no progress bar while transformers reads weights."""
    bars = transformers.utils.logging
    was_active = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if was_active:
            bars.enable_progress_bar()
