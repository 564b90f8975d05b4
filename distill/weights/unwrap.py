"""Find networks in what a weight file holds: in nested dicts, under prefixes, beside optimizers and averages.

Frameworks wrap a network in many ways, also in each other: ``module.`` (DataParallel, AveragedModel), ``_orig_mod.``
(torch.compile) or ``model.`` (Lightning) comes before every name; ``state_dict``, ``model`` or ``net`` is the key of
the dict. Instead of a list of them, every prefix is tried: a dict that has the names of the wanted network without a
common prefix is that network.
"""

import dataclasses
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from distill.models.from_torchvision import is_auxiliary
from distill.weights.foreign_names import to_our_names, without_counters

PREFERRED = ("state_dict", "model", "net", "model_state_dict", "model_state", "network", "module", "_orig_mod")
"""Of several networks, such as one and its average, the one under the first of these keys is used."""
_AVERAGE = re.compile(r"(^|_)(ema|swa|avg|averaged?|shadow)(_|$)", re.IGNORECASE)
"""Keys of an average of weights, such as ``params_ema`` beside ``params``."""
INNER = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names where single modules are parallel, compiled, sharded or recomputed."""
_MAX_PREFIXES, _MAX_TRIED = 16, 1000
"""Prefixes that are removed, and state dicts that are compared: an untrusted file may hold millions."""

State = dict[str, Tensor]
Keys = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A network in a file: the ``keys`` and prefixes that lead to it, and its tensors by our names."""

    keys: Keys
    state: State

    @property
    def label(self) -> str:
        """The keys as text for a message."""
        return ".".join(self.keys)[:100] or "its own names"

    def is_preferred_to(self, other: "Found") -> bool:
        """Return whether this network is preferred to ``other``, by the first key in which they differ."""
        for key, other_key in zip(self.keys, other.keys, strict=False):
            if key != other_key:
                return _rank(key) < _rank(other_key)
        return len(self.keys) < len(other.keys)


def _rank(key: str) -> int:
    """Return the place of a key in ``PREFERRED``; other keys come after those, keys of averages last."""
    return PREFERRED.index(key) if key in PREFERRED else len(PREFERRED) + bool(_AVERAGE.search(key))


def state_dicts(held: Any) -> Iterator[tuple[Keys, State]]:
    """Yield the tensors of every dict in ``held`` with the keys that lead there, outermost dicts first.

    Only dense tensors count, without the attributes that a file may have given them.
    """
    waiting: deque[tuple[Keys, Any]] = deque([((), held)])
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
    """Return whether a value is a tensor that holds each of its numbers: a network is no larger than its file."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and Tensor.untyped_storage(value).nbytes() >= Tensor.numel(value) * value.itemsize
    )


def find_networks(held: Any, arch: str, expected: Mapping[str, Tensor]) -> list[Found]:
    """Return the networks in ``held`` that have the names of ``arch``, which are those of ``expected``.

    Of several, those with most of its shapes; the preferred one, if any, comes first.
    """
    count = len(without_counters(expected))
    parts = (
        (keys, _without_inner_wrappers(part))
        for keys, part in _candidates(held, count)
        if sum(not is_auxiliary(name, arch) for name in without_counters(part)) == count
    )
    found: dict[Any, Found] = {}
    misfits: dict[Any, int] = {}
    for keys, part in islice(parts, _MAX_TRIED):
        state = to_our_names(part, arch, expected)
        if state.keys() == expected.keys():
            storage = tuple(value.data_ptr() for _, value in sorted(without_counters(state).items()))
            found.setdefault(storage, Found(keys=keys, state=state))
            misfits[storage] = sum(state[name].shape != value.shape for name, value in expected.items())
    fewest = [each for storage, each in found.items() if misfits[storage] == min(misfits.values())]
    return sorted(fewest, key=lambda each: [_rank(key) for key in each.keys])


def _without_inner_wrappers(state: State) -> State:
    """Return a state dict without the parts of names that wrappers of single modules add: ``layer1.module.0``."""
    plain = {".".join(part for part in name.split(".") if part not in INNER): v for name, v in state.items()}
    return plain if len(plain) == len(state) else state


def closest_state(held: Any, arch: str, expected: Mapping[str, Tensor]) -> State:
    """Return the state dict in ``held`` that has most of the names of ``arch``: to compare with in an error."""
    most = max(len(state) for _, state in state_dicts(held))
    parts = (to_our_names(part, arch, expected) for _, part in _candidates(held, most // 2 + 1))
    return max(islice(parts, _MAX_TRIED), key=lambda state: (len(state.keys() & expected.keys()), len(state)))


def _candidates(held: Any, count: int) -> Iterator[tuple[Keys, State]]:
    """Yield each state dict, and its parts of at least ``count`` names with a common prefix, without the prefixes."""
    for outer, whole in state_dicts(held):
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
