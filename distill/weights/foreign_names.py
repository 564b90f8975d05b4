"""Turn the names that other repositories give to parameters into ours.

A scheme is listed here only for networks that compute the same function as one of ours: each was read in the
repository it names, and ``tests/distill/weights/test_foreign_names.py`` builds that network and compares logits. No
scheme is needed for names that are ours already: those of akamaster/pytorch_resnet_cifar10 (``resnetN``, with option
B ``resnetN-b``), kuangliu/pytorch-cifar (``vggN-bn``, ``resnetN-8x``), bearpaw/pytorch-classification (``vggN-bn``),
chenyaofo/pytorch-cifar-models (``vggN-bn-512``), weiaicunzai/pytorch-cifar100 (``vggN-bn-4096``), torchvision, and
for ``wrn-D-K`` of xternalz/WideResNet-pytorch, HobbitLong/RepDistiller, polo5/ZeroShotKnowledgeTransfer and
zju-vipa/CMI.

Some names are refused on purpose, because different networks share them: an ImageNet ResNet with a 3×3 stem and
torchvision's names may pool after the stem (huyvnphan/PyTorch_CIFAR10) or not, and no file says which.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from distill.models.from_torchvision import is_auxiliary

_COUNTER = "num_batches_tracked"
_BESIDE = (_COUNTER, "n_averaged", "total_ops", "total_params", "decay")
"""Single numbers beside parameters: counted batches, the counts of thop, the state of averages of weights."""


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
"""A pattern of our names of networks, and how their repositories name the parameters, if in names only they differ.

The rules are patterns and their replacements, applied to every name one after another.
"""

_VARIANTS = (
    (re.compile(r"(resnet\d+)(?:-b|-8x|x4)?"), ("", "-b", "x4", "-8x")),
    (re.compile(r"torchvision/(resnet\d+)"), ("-8x", "-b")),
    (re.compile(r"(wrn-\d+-\d+)(?:-raw)?"), ("", "-raw")),
    (re.compile(r"(vgg\d+-bn)(?:-avg|-\d+)?"), ("", "-avg", "-512", "-4096")),
)
"""Networks that are easily confused: a pattern, and the endings that make a variant of what it captures."""


def to_our_names(state: Mapping[str, Tensor], arch: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under the names of ``expected``, which are those of ``arch``, if a scheme leads there.

    Else the names stay. Counters of batches, which no network computes with, are 0 in the result: torch before 0.4.1
    did not keep them. Other counters, and auxiliary heads, which our networks do not have, are left out.
    """
    zeros = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith(_COUNTER)}
    held = {name: value for name, value in without_counters(state).items() if not is_auxiliary(name, arch)}
    for rules in [(), *(rules for archs, rules in SCHEMES if re.fullmatch(archs, arch))]:
        renamed = {_rename(name, rules): value for name, value in held.items()}
        if len(renamed) == len(held) and (zeros | renamed).keys() == expected.keys():  # no two met under one name
            return zeros | renamed
    return zeros | held


def _rename(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without what no network computes with: single integers, and what profilers add."""
    return {name: value for name, value in state.items() if not _is_counter(name, value)}


def _is_counter(name: str, value: Tensor) -> bool:
    if value.numel() != 1 or value.is_complex() or value.dtype == torch.bool:
        return False
    return not value.is_floating_point() or name.rpartition(".")[2] in _BESIDE


def variants(arch: str) -> list[str]:
    """Return the networks that are easily taken for ``arch``, such as ``resnet56-b`` for ``resnet56``."""
    for pattern, endings in _VARIANTS:
        if match := pattern.fullmatch(arch):
            return [name for name in (match[1] + ending for ending in endings) if name != arch]
    return []
