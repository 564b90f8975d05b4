"""Build networks by name: modules that turn images into logits."""

import difflib
import functools
import re
from collections.abc import Callable

import torch
from torch import nn

from distill.errors import DistillError
from distill.models.from_torchvision import PREFIX, torchvision_model
from distill.models.resnet import CifarResNet, ResNet8x
from distill.models.vgg import CifarVgg
from distill.models.wrn import WideResNet

EXAMPLES = (
    *("resnet20", "resnet32", "resnet44", "resnet56", "wrn-16-4", "wrn-40-4", "vgg16-bn", "vgg19-bn"),
    *("resnet56-b", "resnet32x4", "resnet18-8x", "wrn-40-4-raw", "vgg13-bn-avg", "vgg16-bn-512"),
)

_PATTERNS: tuple[tuple[re.Pattern[str], Callable[..., nn.Module]], ...] = (
    (re.compile(r"resnet(\d{1,4})"), CifarResNet),
    (re.compile(r"resnet(\d{1,4})-b"), functools.partial(CifarResNet, projection=True)),
    (re.compile(r"resnet(\d{1,4})x4"), functools.partial(CifarResNet, wide=True)),
    (re.compile(r"resnet(\d{1,4})-8x"), ResNet8x),
    (re.compile(r"wrn-(\d{1,4})-(\d{1,2})"), WideResNet),
    (re.compile(r"wrn-(\d{1,4})-(\d{1,2})-raw"), functools.partial(WideResNet, raw=True)),
    (re.compile(r"vgg(\d{2})-bn"), CifarVgg),
    (re.compile(r"vgg(\d{2})-bn-avg"), functools.partial(CifarVgg, average=True)),
    (re.compile(r"vgg(\d{2})-bn-([1-9]\d{0,3})"), CifarVgg),
)

MAX_LAYERS, MAX_WIDTH = 1202, 20
"""Limits of a network: the depth of the deepest published ResNet, twice the factor of the widest wide ResNet."""


def build_model(arch: str, num_classes: int) -> nn.Module:
    """Return a newly initialized network from normalized images (B, 3, H, W) to logits (B, num_classes).

    ``arch`` is one of:

    - ``resnetN``, ``wrn-D-K`` or ``vggN-bn``: the CIFAR networks of the paper;
    - a variant of which checkpoints are published: ``resnetN-b`` and ``resnetNx4`` (shortcuts with parameters),
      ``resnetN-8x`` (ImageNet's, for small images), ``wrn-D-K-raw``, ``vggN-bn-avg``, ``vggN-bn-H`` (three linear
      layers, H wide);
    - ``torchvision/NAME``: a classification model of torchvision, such as ``torchvision/resnet50``, without the
      auxiliary heads that ``googlenet`` and ``inception_v3`` can train with.
    """
    if arch.startswith(PREFIX):
        return torchvision_model(arch, num_classes)
    for pattern, factory in _PATTERNS:
        if match := pattern.fullmatch(arch):
            numbers = [int(number) for number in match.groups()]
            if numbers[0] > MAX_LAYERS or (arch.startswith("wrn") and numbers[1] > MAX_WIDTH):
                raise DistillError(
                    f"arch {arch!r}: more than {MAX_LAYERS} layers or {MAX_WIDTH} times as wide; use a smaller one"
                )
            try:
                return factory(*numbers, num_classes=num_classes)
            except ValueError as error:
                raise DistillError(f"arch {arch!r}: {error}") from error
    near = difflib.get_close_matches(arch[:100].replace("_", "-"), EXAMPLES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(EXAMPLES)}"
    raise DistillError(f"arch {arch[:100]!r}: no such network; {hint}; those of torchvision are named '{PREFIX}NAME'")


def require_size(arch: str, num_classes: int, size: int) -> None:
    """Check, on the meta device, that a network in training mode turns images of ``size`` px into logits."""
    try:
        with torch.device("meta"):
            logits = build_model(arch, num_classes)(torch.empty(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise DistillError(f"arch {arch!r}: does not take images of {size} px: {reason}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        raise DistillError(f"arch {arch!r}: returns more than logits while it trains, so it cannot be used here")
