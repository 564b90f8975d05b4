"""Build networks by name, and set options of batch norms. A network maps normalized images to logits."""

import contextlib
import difflib
import functools
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from distill.errors import DistillError
from distill.models.arch import HF, TIMM, is_foreign, is_own, split_arch
from distill.models.libraries import library_model
from distill.models.own import own_network, require_trainable
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

PREFIX = "torchvision/"

_WITH_AUXILIARY_HEADS = {
    PREFIX + "googlenet": re.compile(r"aux[12]\."),
    PREFIX + "inception_v3": re.compile(r"AuxLogits\."),
}
"""Networks with auxiliary heads, and a pattern of the parameter names of these heads.

torchvision uses the heads in training mode only; networks of ``build_model`` have no heads. The published parameters
need ``transform_input``. It changes an input normalized by ImageNet's mean and std to one normalized by 0.5 and 0.5.
"""

MAX_STALE = 0.01  # accepted share of the initial values in the statistics of trained batch norms
logger = logging.getLogger(__name__)

MAX_LAYERS, MAX_WIDTH = 1202, 20
"""Limits: the layers of the deepest published ResNet, and twice the width factor of the widest published WRN."""


def build_model(arch: str, num_classes: int) -> nn.Module:
    """Return a network with random parameters. It maps normalized images (B, 3, H, W) to logits (B, num_classes).

    ``arch`` is one of:

    - ``resnetN``, ``wrn-D-K`` or ``vggN-bn``: the CIFAR networks of the paper
    - a variant with published checkpoints: ``resnetN-b`` and ``resnetNx4`` (shortcuts with parameters),
      ``resnetN-8x`` (ImageNet's ResNets, for small images), ``wrn-D-K-raw``, ``vggN-bn-avg``, ``vggN-bn-H`` (three
      linear layers, H wide)
    - ``torchvision/NAME``: a classification model of torchvision, such as ``torchvision/resnet50``, without the
      auxiliary heads of ``googlenet`` and ``inception_v3``
    - ``timm/NAME``: a network of timm; ``hf/NAME``: an image classifier of transformers, or its folder
    - ``package.module:callable``: code of the user, called with ``num_classes``, if the user allowed the package

    The last three may have arguments, as in ``timm/vit_tiny_patch16_224(img_size=32)``.
    """
    name, arguments = split_arch(arch)
    if is_own(name):
        return own_network(name, arguments, num_classes)
    if name.startswith((TIMM, HF)):
        return library_model(name, arguments, num_classes)
    if arguments:
        found = "only networks of timm, transformers and your own code have arguments"
        raise DistillError(f"arch {arch[:100]!r}: {found}; remove them")
    if arch.startswith(PREFIX):
        return _torchvision_model(arch, num_classes)
    for pattern, factory in _PATTERNS:
        if match := pattern.fullmatch(arch):
            numbers = [int(number) for number in match.groups()]
            if numbers[0] > MAX_LAYERS or (arch.startswith("wrn") and numbers[1] > MAX_WIDTH):
                limits = f"expected at most {MAX_LAYERS} layers and a width factor of at most {MAX_WIDTH}"
                raise DistillError(f"arch {arch!r}: the network is too large, {limits}; choose a smaller network")
            try:
                return factory(*numbers, num_classes=num_classes)
            except ValueError as error:
                raise DistillError(f"arch {arch!r}: {error}; choose another network of this kind") from error
    near = difflib.get_close_matches(arch[:100].replace("_", "-"), EXAMPLES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(EXAMPLES)}"
    raise DistillError(f"arch {arch[:100]!r}: unknown network; {hint} (torchvision's networks are '{PREFIX}NAME')")


def require_size(arch: str, num_classes: int, size: int) -> None:
    """Check on the meta device that the network ``arch`` accepts images of ``size`` px in training mode.

    A network of another library or of the user is built, and computes two images in both modes.
    """
    if is_foreign(arch):
        require_trainable(build_model(arch, num_classes), size, arch, num_classes)
        return
    try:
        with torch.device("meta"):
            build_model(arch, num_classes)(torch.empty(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        found = f"does not accept images of {size} px: {reason}"
        raise DistillError(f"arch {arch!r}: {found}; choose another network or size") from error


def set_batch_norms(network: nn.Module, *, momentum: float | None = None, eps: float | None = None) -> None:
    """Set the momentum and epsilon of all batch norms of ``network``; None leaves a value unchanged.

    ``momentum`` is the weight of a new batch in the running statistics, as in torch; in Keras, momentum is 1 minus
    this weight. ``eps`` is added to the variance. Raises DistillError if ``network`` has no batch norm.
    """
    if momentum is None and eps is None:
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise DistillError("the network has no batch norm, so bn_momentum and bn_eps have no effect; omit them")
    for norm in norms:
        norm.momentum = norm.momentum if momentum is None else momentum
        norm.eps = norm.eps if eps is None else eps


def warn_of_stale_statistics(momentum: float | None, steps: int) -> None:
    """Log a warning if ``steps`` steps do not replace the initial statistics of batch norms with ``momentum``."""
    if momentum is not None and (left := (1 - momentum) ** steps) > MAX_STALE:
        found = f"{left:.0%} of the initial statistics remain after {steps} steps, so evaluation is inaccurate"
        logger.info(f"bn_momentum {momentum}: {found}; raise bn_momentum, or train for more steps")


def _torchvision_model(arch: str, num_classes: int) -> nn.Module:
    name = arch.removeprefix(PREFIX)
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{PREFIX}{near[0]}'?" if near else "choose a name of torchvision.models.list_models()"
        raise DistillError(f"arch {arch!r}: torchvision has no classification model {name!r}; {hint}")
    options = {"aux_logits": False, "transform_input": True} if arch in _WITH_AUXILIARY_HEADS else {}
    shapes = _ShapesOnCpu() if name.startswith("regnet") else contextlib.nullcontext()
    with shapes, warnings.catch_warnings(action="ignore", category=FutureWarning):  # initializations will change
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    return model


def is_auxiliary(name: str, arch: str) -> bool:
    """Return whether the parameter ``name`` of the network ``arch`` belongs to an auxiliary head of torchvision."""
    pattern = _WITH_AUXILIARY_HEADS.get(arch)
    return pattern is not None and re.match(pattern, name) is not None


class _ShapesOnCpu(TorchFunctionMode):
    """Creates ``torch.tensor`` and ``torch.arange`` on the CPU, not on meta: RegNet's widths need the values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({"device": "cpu"} | kwargs if func in (torch.arange, torch.tensor) else kwargs))
