"""What training code wraps around a network's state dict: keys of a checkpoint, prefixes of names, counters.

Wrappers come in any order and depth: DistributedDataParallel puts ``module.`` before every name, ``torch.compile``
``_orig_mod.``, Lightning the attribute's name, ``AveragedModel`` both ``module.`` and a counter.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from distill.errors import DistillError
from manifests.terminal import note_once

KEYS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "student", "model_s", "weights"),
    *("params", "module", "backbone", "encoder"),
)
"""Under which checkpoints hold the network, the likeliest first."""
_BESIDE = ("optim", "sched", "scaler", "amp", "callback", "loop", "hyper", "hparams", "args", "config", "rng", "loss")
"""Parts of keys under which they hold something else."""
_SEGMENTS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Segments of names that stand for a wrapper, also in the middle of a name."""
_COUNTERS = frozenset(
    {"num_batches_tracked", "n_averaged", "total_ops", "total_params", "num_updates", "initted", "step", "decay"}
)
_MAX_DEPTH = 6


def is_counter(name: str, value: Tensor) -> bool:
    """Return whether a tensor is a single number that training or a profiler keeps, and no inference needs."""
    return name.rpartition(".")[2] in _COUNTERS and value.numel() <= 1


def find_state(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict that a checkpoint holds; a note says its key if there are others.

    Raises:
        DistillError: it holds none, or several of which none has a usual key.
    """
    found = dict(_state_dicts(loaded, (), 0))
    if not found:
        raise DistillError(
            f"{path}: holds no state dict, expected a dict of parameter names to tensors, by itself or under a key "
            f"such as {', '.join(KEYS[:4])}"
        )
    usual = sorted((keys for keys in found if all(key in KEYS for key in keys)), key=_likelihood)
    if len(found) > 1 and not usual:
        names = ", ".join(sorted("/".join(keys) for keys in found)[:6])
        raise DistillError(f"{path}: holds several networks ({names}); save the state dict of one of them alone")
    chosen = usual[0] if usual else next(iter(found))
    if others := sorted("/".join(keys) for keys in found if keys != chosen):
        note_once(f"{path}: the network under {'/'.join(chosen)} is read; it also holds {', '.join(others[:5])}")
    return found[chosen]


def _likelihood(keys: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(KEYS.index(key) for key in keys)


def _state_dicts(
    value: Any, keys: tuple[str, ...], depth: int
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every dict of named tensors below a value, with the keys that lead to it."""
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return
    tensors = {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)}
    others = [item for name, item in value.items() if name not in tensors]
    if any(item.ndim for item in tensors.values()) and not any(isinstance(item, dict | list) for item in others):
        yield keys, tensors
        return
    for key, item in value.items():
        if isinstance(key, str) and not any(part in key.lower() for part in _BESIDE):
            yield from _state_dicts(item, (*keys, key), depth + 1)


def peeled(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield a state dict, then the same without one more wrapper at a time, and last without any inside of names."""
    names = dict(state)
    yield names
    while prefix := _shared_segment(names):
        names = {name.removeprefix(prefix): value for name, value in names.items()}
        yield names
    plain = {".".join(part for part in name.split(".") if part not in _SEGMENTS): v for name, v in names.items()}
    if plain.keys() != names.keys() and len(plain) == len(names):
        yield from peeled(plain)


def parts(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts below each first segment of the names, the likeliest networks first."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        first, dot, rest = name.partition(".")
        if dot:
            found.setdefault(first, {})[rest] = value
    order = sorted(found, key=lambda first: (KEYS.index(first) if first in KEYS else len(KEYS), first))
    return {first: found[first] for first in order}


def _shared_segment(state: Mapping[str, Tensor]) -> str:
    """Return the first segment, with its dot, that all names but those of counters share; empty if there is none."""
    firsts = {name.partition(".")[:2] for name, value in state.items() if not is_counter(name, value)}
    (first, dot), *more = firsts or {("", "")}
    return first + dot if dot and not more else ""
