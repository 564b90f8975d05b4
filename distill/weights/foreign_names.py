"""Find networks in the content of weight files of other repositories, and rename their parameters to our names.

Frameworks wrap a network in many ways. They add a prefix to every name, such as ``module.`` (DataParallel,
AveragedModel), ``_orig_mod.`` (torch.compile) or ``model.`` (Lightning), and they store the network under a key such
as ``state_dict``, ``model`` or ``net``. This module removes prefixes from the names of every dict of tensors. If the
names are then those of the wanted network, the dict is the network.

``SCHEMES`` contains only networks that compute the same function as one of our networks. For each of these networks,
``tests/distill/weights/test_foreign_names.py`` compares the logits with the original network. Repositories that use
our names need no scheme. There is no scheme for names that do not determine the network. Example: torchvision's
names of a ResNet with a 3×3 stem do not show whether a pooling layer follows (as in huyvnphan/PyTorch_CIFAR10).
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill.models import is_auxiliary

_COUNTER = "num_batches_tracked"
_BESIDE = (_COUNTER, "n_averaged", "total_ops", "total_params", "decay")
"""Names of single numbers that are not parameters: counters of batches, profilers (thop) and weight averages."""

State = dict[str, Tensor]
Keys = tuple[str, ...]
Rules = tuple[tuple[str, str], ...]

_WEIAICUNZAI = (  # pytorch-cifar100
    *((r"^conv1\.0\.", "conv1."), (r"^conv1\.1\.", "bn1."), (r"^fc\.", "linear.")),
    *((rf"^conv{stage + 1}_x\.", f"layer{stage}.") for stage in (1, 2, 3, 4)),
    *((rf"\.residual_function\.{3 * k - 3}\.", f".conv{k}.") for k in (1, 2, 3)),
    *((rf"\.residual_function\.{3 * k - 2}\.", f".bn{k}.") for k in (1, 2, 3)),
)
SCHEMES: tuple[tuple[str, Rules], ...] = (
    # chenyaofo/pytorch-cifar-models, HobbitLong/RepDistiller, zju-vipa/CMI, megvii-research/mdistiller,
    # yoshitomo-matsubara/torchdistill, bearpaw/pytorch-classification (of basic blocks)
    (r"resnet\d+-b|resnet\d+x4", ((r"^(layer\d\.\d+)\.downsample\.", r"\1.shortcut."), (r"^fc\.", "linear."))),
    # HobbitLong/RepDistiller, zju-vipa/CMI, megvii-research/mdistiller
    (r"vgg\d+-bn-avg", ((r"^block(\d)\.", r"features.\1."),)),
    # yoshitomo-matsubara/torchdistill
    (r"wrn-\d+-\d+-raw", ((r"^layer(\d)\.", r"block\1.layer."), (r"\.shortcut\.0\.", ".rawShortcut."))),
    (r"resnet\d+-8x", _WEIAICUNZAI),
    # torchvision's DenseNet and ViT files, which are older than its code
    (r"torchvision/densenet\d+", ((r"\.(norm|conv)\.([12])\.", r".\1\2."),)),
    (r"torchvision/vit_\w+", ((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3."))),
)
"""Pairs of a pattern of our network names, and rules that rename another repository's parameters of these networks.

A rule is a pattern of a parameter name, and a replacement. All rules are applied to every name, in order.
"""

_BASE = re.compile(r"(?:torchvision/)?(resnet\d+|wrn-\d+-\d+|vgg\d+-bn)(?:x4|-.*)?")
_ENDINGS = ("", "-b", "x4", "-8x", "-raw", "-avg", "-512", "-4096")
"""Endings of the names of networks that are easily confused, such as ``resnet56`` and ``resnet56-b``."""

PREFERRED = ("state_dict", "model", "net", "model_state_dict", "model_state", "network", "module", "_orig_mod")
"""Keys of networks in a file. If a file has several networks, the network with the first of these keys is used."""
_AVERAGE = re.compile(r"(^|_)(ema|swa|avg|averaged?|shadow)(_|$)", re.IGNORECASE)
"""Keys under which files store an average of weights, such as ``params_ema``."""
INNER = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts that torch adds to the parameter names of parallel, compiled, sharded or recomputed modules."""
_MAX_PREFIXES, _MAX_TRIED = 16, 1000
"""Limits for an untrusted file: the prefixes removed from one name, and the state dicts compared with a network."""


def to_our_names(state: Mapping[str, Tensor], arch: str, expected: Mapping[str, Tensor]) -> State:
    """Rename the parameters in ``state`` to the names in ``expected``, the state dict of the network ``arch``.

    If no scheme produces the names in ``expected``, the names do not change. Auxiliary heads are removed. Counters of
    batches in the result are 0, because no network uses the value.
    """
    zeros = {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith(_COUNTER)}
    own = {name: value for name, value in without_counters(state).items() if not is_auxiliary(name, arch)}
    for rules in [(), *(rules for archs, rules in SCHEMES if re.fullmatch(archs, arch))]:
        renamed = own
        for pattern, replacement in rules:
            renamed = {re.sub(pattern, replacement, name): value for name, value in renamed.items()}
        if len(renamed) == len(own) and (zeros | renamed).keys() == expected.keys():  # all new names are different
            return zeros | renamed
    return zeros | own


def without_counters(state: Mapping[str, Tensor]) -> State:
    """Return ``state`` without values that no network uses: single integers, and numbers named in ``_BESIDE``."""
    return {name: value for name, value in state.items() if not _is_counter(name, value)}


def _is_counter(name: str, value: Tensor) -> bool:
    if value.numel() != 1 or value.is_complex() or value.dtype == torch.bool:
        return False
    return not value.is_floating_point() or name.rpartition(".")[2] in _BESIDE


def variants(arch: str) -> list[str]:
    """Return names that a user may confuse with the name ``arch``, such as ``resnet56-b`` with ``resnet56``.

    Some of these names belong to no network.
    """
    base = _BASE.fullmatch(arch)
    return [base[1] + ending for ending in _ENDINGS if base[1] + ending != arch] if base else []


class Found(NamedTuple):
    """A network in a weight file. The dict keys and name prefixes ``keys`` lead to ``state``, which has our names."""

    keys: Keys
    state: State

    @property
    def label(self) -> str:
        return ".".join(self.keys)[:100] or "(no key)"

    def is_preferred_to(self, other: "Found") -> bool:
        """Return whether this network is preferred to ``other``. The first pair of different keys decides."""
        for key, other_key in zip(self.keys, other.keys, strict=False):
            if key != other_key:
                return _rank(key) < _rank(other_key)
        return len(self.keys) < len(other.keys)


def _rank(key: str) -> int:
    """Return 0 for the most preferred key, and larger numbers for other keys. Keys of averages come last."""
    return PREFERRED.index(key) if key in PREFERRED else len(PREFERRED) + bool(_AVERAGE.search(key))


def state_dicts(content: Any) -> Iterator[tuple[Keys, State]]:
    """Find the dicts with tensors in ``content``. Yield the keys that lead to each dict, and the tensors.

    Outer dicts are first. Sparse and quantized tensors are omitted. Attributes added to tensors are removed.
    """
    waiting: deque[tuple[Keys, Any]] = deque([((), content)])
    seen: set[int] = set()
    while waiting:
        keys, holder = waiting.popleft()
        if id(holder) in seen or not isinstance(holder, dict | list):
            continue
        seen.add(id(holder))
        items = list(dict.items(holder) if isinstance(holder, dict) else enumerate(holder))
        if state := {key: Tensor.detach(value) for key, value in items if isinstance(key, str) and _is_dense(value)}:
            yield keys, state
        waiting.extend(((*keys, str(key)), value) for key, value in items if isinstance(key, str | int))


def _is_dense(value: object) -> bool:
    """Return whether a value is a tensor that stores all its numbers. Other tensors may be larger than the file."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and Tensor.untyped_storage(value).nbytes() >= Tensor.numel(value) * value.itemsize
    )


def find_networks(content: Any, arch: str, expected: Mapping[str, Tensor]) -> list[Found]:
    """Return the networks in ``content`` with exactly the names in ``expected``, the state dict of ``arch``.

    A network with more wrong shapes than another network is omitted. The preferred network is first.
    """
    count = len(without_counters(expected))
    parts = (
        (keys, _without_inner_wrappers(part))
        for keys, part in _candidates(content, count)
        if sum(not is_auxiliary(name, arch) for name in without_counters(part)) == count
    )
    found: dict[Any, Found] = {}
    misfits: dict[Any, int] = {}
    for keys, part in islice(parts, _MAX_TRIED):
        state = to_our_names(part, arch, expected)
        if state.keys() == expected.keys():
            storage = tuple(value.data_ptr() for _, value in sorted(without_counters(state).items()))
            found.setdefault(storage, Found(keys, state))
            misfits[storage] = sum(state[name].shape != value.shape for name, value in expected.items())
    fewest = [each for storage, each in found.items() if misfits[storage] == min(misfits.values())]
    return sorted(fewest, key=lambda each: [_rank(key) for key in each.keys])


def _without_inner_wrappers(state: State) -> State:
    """Remove the parts in ``INNER`` from the names in ``state``: ``layer1.module.0`` becomes ``layer1.0``."""
    plain = {".".join(part for part in name.split(".") if part not in INNER): v for name, v in state.items()}
    return plain if len(plain) == len(state) else state


def closest_state(content: Any, arch: str, expected: Mapping[str, Tensor]) -> State:
    """Return the state dict in ``content`` that shares most names with ``expected``, the state dict of ``arch``."""
    most = max(len(state) for _, state in state_dicts(content))
    parts = (to_our_names(part, arch, expected) for _, part in _candidates(content, most // 2 + 1))
    return max(islice(parts, _MAX_TRIED), key=lambda state: (len(state.keys() & expected.keys()), len(state)))


def _candidates(content: Any, count: int) -> Iterator[tuple[Keys, State]]:
    """Yield dicts of at least ``count`` tensors. Tensors with a common prefix form another dict, without prefix."""
    for outer, whole in state_dicts(content):
        waiting: deque[tuple[Keys, State]] = deque([((), whole)])
        while waiting:
            prefixes, state = waiting.popleft()
            if len(state) >= count:
                yield (*outer, *prefixes), state
            parts: defaultdict[str, State] = defaultdict(dict)
            for name, value in state.items():
                prefix, dot, rest = name.partition(".")
                if dot and len(prefixes) < _MAX_PREFIXES:
                    parts[prefix][rest] = value
            waiting.extend(((*prefixes, prefix), part) for prefix, part in parts.items() if len(part) >= count)
