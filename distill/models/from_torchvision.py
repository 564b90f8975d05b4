"""Build classification models of torchvision by name. They map normalized images to logits only."""

import contextlib
import difflib
import re
import warnings
from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from distill.errors import DistillError

PREFIX = "torchvision/"

_WITH_AUXILIARY_HEADS = {"googlenet": re.compile(r"aux[12]\."), "inception_v3": re.compile(r"AuxLogits\.")}
"""Networks with auxiliary heads, and a pattern of the parameter names of these heads.

torchvision uses the heads in training mode only; our networks never have them. The published parameters of these
networks need ``transform_input``, which normalizes the input, normalized by ImageNet's mean and std, again by 0.5.
"""


def torchvision_model(arch: str, num_classes: int) -> nn.Module:
    """Build the model ``torchvision/NAME``, with random parameters."""
    name = arch.removeprefix(PREFIX)
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{PREFIX}{near[0]}'?" if near else "torchvision.models.list_models() lists all models"
        raise DistillError(f"arch {arch!r}: torchvision has no classification model {name!r}; {hint}")
    options = {"aux_logits": False, "transform_input": True} if name in _WITH_AUXILIARY_HEADS else {}
    with warnings.catch_warnings(), _ShapesOnCpu() if name.startswith("regnet") else contextlib.nullcontext():
        # some models always warn that their initialization will change
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    return model


def is_auxiliary(name: str, arch: str) -> bool:
    """Return whether the parameter ``name`` of ``arch`` belongs to an auxiliary head. Our networks have none."""
    pattern = _WITH_AUXILIARY_HEADS.get(arch.removeprefix(PREFIX))
    return arch.startswith(PREFIX) and pattern is not None and pattern.match(name) is not None


class _ShapesOnCpu(TorchFunctionMode):
    """Put the tensors from which torchvision computes the widths of a RegNet on the CPU, not on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({"device": "cpu"} | kwargs if func in (torch.arange, torch.tensor) else kwargs))
