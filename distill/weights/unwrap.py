"""Networks in what a weight file holds: in dicts in each other, under prefixes, beside optimisers and averages.

Frameworks wrap a network in many ways, and in each other: ``module.`` (DataParallel, AveragedModel), ``_orig_mod.``
(torch.compile) or ``model.`` (Lightning) stands before every name, ``state_dict``, ``model`` or ``net`` is the key of
the dict. So no list of them is kept: what has the names of the wanted network, once what stands before each of them
is taken off, is that network.
"""

import dataclasses
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from torch import Tensor

from distill.models.from_torchvision import is_auxiliary
from distill.weights.foreign_names import to_our_names, without_counters

PREFERRED = ("state_dict", "model", "net", "model_state_dict", "model_state", "network", "module", "_orig_mod")
"""Of several networks, such as one and its average, that which stands under the first of these is meant."""
_AVERAGE = re.compile(r"(^|_)(ema|swa|avg|averaged?|shadow)(_|$)", re.IGNORECASE)
"""Keys of an average of weights, as in ``params_ema`` beside ``params``."""
INNER = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What stands inside of names where single modules are parallel, compiled, sharded or recomputed."""
_MAX_WORDS, _MAX_TRIED = 16, 1000
"""Prefixes that are taken off, and state dicts that are compared: a file may be made to hold millions."""

State = dict[str, Tensor]
Keys = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A network in a file: the ``keys`` and prefixes that lead to it, and its tensors by our names."""

    keys: Keys
    state: State

    @property
    def where(self) -> str:
        """The keys, as they are said to a user."""
        return ".".join(self.keys)[:100] or "its own names"

    @property
    def rank(self) -> tuple[int, ...]:
        """For each key its place in ``PREFERRED``, or one behind that, or two where it names an average."""
        return tuple(
            PREFERRED.index(key) if key in PREFERRED else len(PREFERRED) + bool(_AVERAGE.search(key))
            for key in self.keys
        )

    def is_before(self, other: "Found") -> bool:
        """Whether this one is meant, and not ``other``: the first key in which they differ says so."""
        for key, other_key, rank, other_rank in zip(self.keys, other.keys, self.rank, other.rank, strict=False):
            if key != other_key:
                return rank < other_rank
        return len(self.keys) < len(other.keys)


def state_dicts(held: Any) -> Iterator[tuple[Keys, State]]:
    """The tensors of every dict in ``held``, by the keys that lead there; the outermost first."""
    waiting: deque[tuple[Keys, Any]] = deque([((), held)])
    seen: set[int] = set()
    while waiting:
        keys, holder = waiting.popleft()
        if id(holder) in seen or not isinstance(holder, dict | list):
            continue
        seen.add(id(holder))
        items = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
        if state := {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}:
            yield keys, state
        waiting.extend(((*keys, str(key)), value) for key, value in items if isinstance(value, dict | list))


def find_networks(held: Any, arch: str, expected: Mapping[str, Tensor]) -> list[Found]:
    """The networks in ``held`` that have the names of ``arch``, which are those of ``expected``.

    Of several, those of most of its shapes; the one that is meant, if any, comes first.
    """
    need = len(without_counters(expected))
    parts = (
        ((*keys, *more), _without_inner_wrappers(part, expected))
        for keys, state in state_dicts(held)
        for more, part in _peeled(state, need)
        if sum(not is_auxiliary(name, arch) for name in without_counters(part)) == need
    )
    ours = ((keys, to_our_names(part, arch, expected)) for keys, part in islice(parts, _MAX_TRIED))
    found = [Found(keys=keys, state=state) for keys, state in ours if state.keys() == expected.keys()]
    found = list({_identity(each.state): each for each in reversed(found)}.values())[::-1]
    fewest = min((_misfits(each.state, expected) for each in found), default=0)
    return sorted((each for each in found if _misfits(each.state, expected) == fewest), key=lambda each: each.rank)


def _without_inner_wrappers(state: State, expected: Mapping[str, Tensor]) -> State:
    """Return a state dict without what wrappers of single modules put inside of names: ``layer1.module.0``."""
    if any(word in name.split(".") for word in INNER for name in expected):
        return state
    plain = {".".join(word for word in name.split(".") if word not in INNER): v for name, v in state.items()}
    return plain if len(plain) == len(state) else state


def closest(held: Any, arch: str, expected: Mapping[str, Tensor]) -> State:
    """The state dict in ``held`` that has most of the names of ``arch``: what to compare with in an error."""

    def common(state: State) -> tuple[int, int]:
        return len(state.keys() & expected.keys()), len(state)

    states = [state for _, state in state_dicts(held)]
    largest = max(map(len, states))
    parts = (
        to_our_names(part, arch, expected)
        for state in states
        if 2 * len(state) >= largest
        for _, part in _peeled(state, len(state) // 2 + 1)
    )
    return max(islice(parts, _MAX_TRIED), key=common)


def _peeled(state: State, need: int) -> Iterator[tuple[Keys, State]]:
    """A state dict, and its parts of at least ``need`` names that begin alike, without these beginnings."""
    waiting: deque[tuple[Keys, State]] = deque([((), state)])
    while waiting:
        keys, state = waiting.popleft()
        yield keys, state
        parts: defaultdict[str, State] = defaultdict(dict)
        for name, value in state.items():
            word, dot, rest = name.partition(".")
            if dot and len(keys) < _MAX_WORDS:
                parts[word][rest] = value
        waiting.extend(((*keys, word), part) for word, part in parts.items() if len(part) >= need)


def _identity(state: State) -> tuple[tuple[str, int], ...]:
    """Equal for two state dicts of the same tensors."""
    return tuple((name, value.data_ptr()) for name, value in sorted(without_counters(state).items()))


def _misfits(state: State, expected: Mapping[str, Tensor]) -> int:
    return sum(state[name].shape != value.shape for name, value in expected.items())
