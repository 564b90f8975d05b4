"""Build classification models of torchvision by name: networks from normalized images to logits alone."""

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
"""Networks that return more than logits in training mode, and the names of the parameters of these auxiliary heads.

The heads serve training only: torchvision leaves them out at inference, and here they are always left out.
``transform_input`` is as ``weights=`` of torchvision sets it, which the published parameters need: input that is
normalized by ImageNet's mean and deviation is normalized again, to 0.5 and 0.5.
"""


def torchvision_model(arch: str, num_classes: int) -> nn.Module:
    """Build the model ``torchvision/NAME``, with random parameters."""
    name = arch.removeprefix(PREFIX)
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{PREFIX}{near[0]}'?" if near else "see torchvision.models.list_models()"
        raise DistillError(f"arch {arch!r}: torchvision has no classification model {name!r}; {hint}")
    options = {"aux_logits": False, "transform_input": True} if name in _WITH_AUXILIARY_HEADS else {}
    with warnings.catch_warnings(), _ShapesOnCpu() if name.startswith("regnet") else contextlib.nullcontext():
        # some warn that their initialization will change, whatever the arguments
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    return model


def is_auxiliary(name: str, arch: str) -> bool:
    """Return whether a parameter of ``arch`` belongs to an auxiliary head, which ``torchvision_model`` leaves out."""
    pattern = _WITH_AUXILIARY_HEADS.get(arch.removeprefix(PREFIX))
    return arch.startswith(PREFIX) and pattern is not None and pattern.match(name) is not None


class _ShapesOnCpu(TorchFunctionMode):
    """Create the tensors from which torchvision computes a RegNet's widths on the CPU, also on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({"device": "cpu"} | kwargs if func in (torch.arange, torch.tensor) else kwargs))
