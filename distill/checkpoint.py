"""Checkpoints: everything a run needs to go on as if it had never stopped; never the teacher."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.archive import require_sums
from distill.errors import DamagedError, DistillError
from distill.tensors import load_tensors
from manifests.files import write_atomically

CHECKPOINT_NAME = "checkpoint.pt"
PREVIOUS_NAME = "checkpoint.previous.pt"
DAMAGED_NAME = "checkpoint.damaged.pt"
_OTHER_OUT = "choose another --out"
KEYS = frozenset(
    {"identity", "arithmetic", "student", "optimizer", "scaler", "scheduler", "average", "step", "seconds", "losses"}
)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state``, built of tensors and plain values, whole or not at all; the one before it stays beside it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = folder / CHECKPOINT_NAME
    if path.exists():
        path.replace(folder / PREVIOUS_NAME)  # killed here, a run goes on from the previous one
    write_atomically(path, buffer.getvalue())


def holds_checkpoint(folder: Path) -> bool:
    """Whether a run was ever saved in ``folder``."""
    return any((folder / name).is_file() for name in (CHECKPOINT_NAME, PREVIOUS_NAME))


def load_checkpoint(folder: Path, identity: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any] | None:
    """The last good state saved in a run directory, or None; loaded weights-only.

    Raises:
        DistillError: all there is is damaged, or belongs to a run whose ``identity`` differs.
    """
    paths = [path for name in (CHECKPOINT_NAME, PREVIOUS_NAME) if (path := folder / name).exists()]
    for path in paths:
        try:
            state = load_tensors(path)
            require_sums(path)
        except DamagedError as error:
            if path == paths[-1]:
                raise
            say(f"{error}; going on from {PREVIOUS_NAME}, the one before it")
            path.replace(folder / DAMAGED_NAME)  # or the next checkpoint would make it the previous one
            continue
        require_identity(state, identity, path)
        return state
    return None


def require_like(held: Any, own: Any, where: str) -> None:
    """Refuse a part of a run's state that is built otherwise than the run's ``own``: keys, lengths, kinds and shapes.

    Nothing may replace an attribute that is no number, and no tensor may be of another size than what it is put into.

    Raises:
        DamagedError: ``held`` is; ``where`` names it.
    """
    if isinstance(own, dict) and isinstance(held, dict):
        if strange := [key for key in (*held, *own) if (key in held) != (key in own)]:
            raise DamagedError(f"{where}: the key {str(strange[0])[:100]!r} is missing or too many; {_OTHER_OUT}")
        for key, value in own.items():
            require_like(held[key], value, f"{where}.{key}")
    elif isinstance(own, list | tuple) and isinstance(held, list | tuple):
        if len(held) != len(own):
            raise DamagedError(f"{where}: {len(held)} values, expected {len(own)}; {_OTHER_OUT}")
        for number, (inner, value) in enumerate(zip(held, own, strict=True)):
            require_like(inner, value, f"{where}[{number}]")
    elif isinstance(own, Tensor) and isinstance(held, Tensor):
        if (held.shape, held.dtype) != (own.shape, own.dtype):
            found, wanted = (f"{value.dtype} {tuple(value.shape)}" for value in (held, own))
            raise DamagedError(f"{where}: {found}, expected {wanted}; {_OTHER_OUT}")
        if not bool(torch.isfinite(held).all()):
            raise DamagedError(f"{where}: holds what is no finite number; {_OTHER_OUT}")
    elif _are_numbers(own) or type(held) is not type(own):
        if _are_numbers(held, own):
            return
        raise DamagedError(f"{where}: {type(held).__name__}, expected {type(own).__name__}; {_OTHER_OUT}")


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def require_optimizer(held: Any, optimizer: torch.optim.Optimizer, where: str) -> None:
    """Refuse an optimiser's state whose groups are not this one's, or whose tensors do not fit its parameters.

    Raises:
        DamagedError: it is none of this optimiser; ``where`` names it.
    """
    own = optimizer.state_dict()
    if not isinstance(held, dict) or not isinstance(held.get("state"), dict):
        raise DamagedError(f"{where}: holds no state; {_OTHER_OUT}")
    require_like(held.get("param_groups"), own["param_groups"], f"{where}.param_groups")
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for number, entry in held["state"].items():
        if number not in range(len(parameters)) or not isinstance(entry, dict):
            raise DamagedError(f"{where}.state: has no such parameter as {str(number)[:100]!r}; {_OTHER_OUT}")
        for key, value in entry.items():
            fits = isinstance(value, Tensor) and value.shape in (torch.Size(()), parameters[number].shape)
            if not fits and value is not None:
                raise DamagedError(f"{where}.state[{number}].{str(key)[:100]}: does not fit; {_OTHER_OUT}")


def require_identity(state: Any, identity: dict[str, Any], path: Path) -> None:
    """Refuse a ``state``, loaded from ``path``, that is of another run than ``identity`` says.

    Raises:
        DistillError: it is, or it is no run's state at all.
    """
    held = state.get("identity") if isinstance(state, dict) else None
    if not isinstance(held, dict) or not state.keys() >= KEYS or not isinstance(state["arithmetic"], dict):
        raise DistillError(f"{path}: holds no run's state; choose another --out")
    for key, value in identity.items():
        if held.get(key) != value:
            raise DistillError(
                f"{path}: belongs to a run with {key} {str(held.get(key))[:500]}, this one has {value}; "
                "resume with what it was started with, or choose another --out"
            )
