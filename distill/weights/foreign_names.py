"""Rename the parameters of networks from other repositories to our names.

``SCHEMES`` contains only networks that compute the same function as one of our networks. Each was read in the
repository, and ``tests/distill/weights/test_foreign_names.py`` builds it and compares logits. These repositories use
our names already: akamaster/pytorch_resnet_cifar10 (``resnetN``, with option B ``resnetN-b``), kuangliu/pytorch-cifar
(``vggN-bn``, ``resnetN-8x``), bearpaw/pytorch-classification (``vggN-bn``), chenyaofo/pytorch-cifar-models
(``vggN-bn-512``), weiaicunzai/pytorch-cifar100 (``vggN-bn-4096``), torchvision, and for ``wrn-D-K``
xternalz/WideResNet-pytorch, HobbitLong/RepDistiller, polo5/ZeroShotKnowledgeTransfer and zju-vipa/CMI.

Some names are refused, because different networks have them. An ImageNet ResNet with a 3×3 stem and torchvision's
names may have a pooling layer after the stem (huyvnphan/PyTorch_CIFAR10) or none, and no file declares which.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from distill.models import is_auxiliary

_COUNTER = "num_batches_tracked"
_BESIDE = (_COUNTER, "n_averaged", "total_ops", "total_params", "decay")
"""Names of single numbers that are not parameters: counters of batches, of thop, and of averages of weights."""

Rules = tuple[tuple[str, str], ...]

SCHEMES: tuple[tuple[str, Rules], ...] = (
    # chenyaofo/pytorch-cifar-models, HobbitLong/RepDistiller, zju-vipa/CMI, megvii-research/mdistiller,
    # yoshitomo-matsubara/torchdistill, bearpaw/pytorch-classification (of basic blocks)
    (r"resnet\d+-b|resnet\d+x4", ((r"^(layer\d\.\d+)\.downsample\.", r"\1.shortcut."), (r"^fc\.", "linear."))),
    # HobbitLong/RepDistiller, zju-vipa/CMI, megvii-research/mdistiller
    (r"vgg\d+-bn-avg", ((r"^block(\d)\.", r"features.\1."),)),
    # yoshitomo-matsubara/torchdistill
    (
        r"wrn-\d+-\d+-raw",
        ((r"^layer(\d)\.(\d+)\.", r"block\1.layer.\2."), (r"\.shortcut\.0\.", ".rawShortcut.")),
    ),
    # weiaicunzai/pytorch-cifar100
    (
        r"resnet\d+-8x",
        (
            *((r"^conv1\.0\.", "conv1."), (r"^conv1\.1\.", "bn1."), (r"^fc\.", "linear.")),
            *((rf"^conv{stage + 1}_x\.", f"layer{stage}.") for stage in (1, 2, 3, 4)),
            *((rf"\.residual_function\.{3 * k - 3}\.", f".conv{k}.") for k in (1, 2, 3)),
            *((rf"\.residual_function\.{3 * k - 2}\.", f".bn{k}.") for k in (1, 2, 3)),
        ),
    ),
    # torchvision's DenseNet and ViT files, which are older than its code
    (r"torchvision/densenet\d+", ((r"\.(norm|conv)\.([12])\.", r".\1\2."),)),
    (r"torchvision/vit_\w+", ((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3."))),
)
"""A pattern of our names of networks, and the rules that rename the parameters of other repositories.

A rule is a pattern and its replacement. All rules are applied to every name, in order.
"""

_BASE = re.compile(r"(?:torchvision/)?(resnet\d+|wrn-\d+-\d+|vgg\d+-bn)(?:x4|-.*)?")
_ENDINGS = ("", "-b", "x4", "-8x", "-raw", "-avg", "-512", "-4096")
"""Endings of networks that are easily confused, because they have the same base name."""


def to_our_names(state: Mapping[str, Tensor], arch: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with the names of ``expected``, the state dict of ``arch``, if a scheme renames to them.

    If no scheme does, the names do not change. Counters of batches are 0 in the result, because no network uses them
    and torch before 0.4.1 did not store them. The result has no other counters, and no auxiliary heads.
    """
    zeros = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith(_COUNTER)}
    own = {name: value for name, value in without_counters(state).items() if not is_auxiliary(name, arch)}
    for rules in [(), *(rules for archs, rules in SCHEMES if re.fullmatch(archs, arch))]:
        renamed = {_rename(name, rules): value for name, value in own.items()}
        if len(renamed) == len(own) and (zeros | renamed).keys() == expected.keys():  # all new names are different
            return zeros | renamed
    return zeros | own


def _rename(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the values that no network uses: single integers, and values of profilers."""
    return {name: value for name, value in state.items() if not _is_counter(name, value)}


def _is_counter(name: str, value: Tensor) -> bool:
    if value.numel() != 1 or value.is_complex() or value.dtype == torch.bool:
        return False
    return not value.is_floating_point() or name.rpartition(".")[2] in _BESIDE


def variants(arch: str) -> list[str]:
    """Return the networks that are easily confused with ``arch``, such as ``resnet56-b`` with ``resnet56``.

    Some of these networks do not exist.
    """
    base = _BASE.fullmatch(arch)
    return [base[1] + ending for ending in _ENDINGS if base[1] + ending != arch] if base else []
