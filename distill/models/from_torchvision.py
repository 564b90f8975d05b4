"""Classification models of torchvision by name, as networks from normalised images to logits and nothing else."""

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

_WITH_AUXILIARY_HEADS: dict[str, re.Pattern[str]] = {
    "googlenet": re.compile(r"aux[12]\."),
    "inception_v3": re.compile(r"AuxLogits\."),
}
"""Networks that return more than logits while they train, and the names of the parameters that do so.

The heads only train: at inference torchvision leaves them out, and here they are left out always. ``transform_input``
is as ``weights=`` of torchvision sets it, with which the published parameters were ported: input normalised by
ImageNet's mean and deviation is normalised again, to 0.5 and 0.5.
"""


def torchvision_model(arch: str, num_classes: int) -> nn.Module:
    """Build the model ``torchvision/NAME``, with random parameters.

    Raises:
        DistillError: torchvision has no such model.
    """
    name = arch.removeprefix(PREFIX)
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{PREFIX}{near[0]}'?" if near else "see torchvision.models.list_models()"
        raise DistillError(f"arch {arch!r}: torchvision has no classification model {name!r}; {hint}")
    options = {"aux_logits": False, "transform_input": True} if name in _WITH_AUXILIARY_HEADS else {}
    with warnings.catch_warnings(), _ShapesOnCpu() if name.startswith("regnet") else contextlib.nullcontext():
        # Some announce, whatever the arguments, how they will be initialised one day.
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    return model


def is_auxiliary(name: str, arch: str) -> bool:
    """Tell whether a parameter of ``arch`` is of a head that only trains, which ``torchvision_model`` leaves out."""
    pattern = _WITH_AUXILIARY_HEADS.get(arch.removeprefix(PREFIX))
    return arch.startswith(PREFIX) and pattern is not None and pattern.match(name) is not None


class _ShapesOnCpu(TorchFunctionMode):
    """Makes the tensors on the CPU from which torchvision computes a RegNet's widths: on the meta device they have no
    values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({"device": "cpu"} | kwargs if func in (torch.arange, torch.tensor) else kwargs))
