"""Checkpoints: everything a run needs to go on as if it had never stopped; never the teacher."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill.errors import DamagedError, DistillError
from distill.weights.archive import is_archive, require_sums
from distill.weights.torch_files import load_tensors, require_file
from manifests.support.files import write_atomically

CHECKPOINT_NAME = "checkpoint.pt"
PREVIOUS_NAME = "checkpoint.previous.pt"
DAMAGED_NAME = "checkpoint.damaged.pt"
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


def load_checkpoint(
    folder: Path, identity: dict[str, Any], most: int, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The last good state saved in a run directory, in at most ``most`` bytes, or None; loaded weights-only.

    Its tensors are mapped: whoever keeps them copies them.

    Raises:
        DistillError: all there is is damaged, or belongs to a run whose ``identity`` differs.
    """
    paths = [path for name in (CHECKPOINT_NAME, PREVIOUS_NAME) if (path := folder / name).exists()]
    for path in paths:
        try:
            state = _load(path, most)
        except DamagedError as error:
            if path == paths[-1]:
                raise
            say(f"{error}; going on from {PREVIOUS_NAME}, the one before it")
            path.replace(folder / DAMAGED_NAME)  # or the next checkpoint would make it the previous one
            continue
        require_identity(state, identity, path)
        return state
    return None


def _load(path: Path, most: int) -> Any:
    require_file(path, most)
    state = load_tensors(path)
    if not is_archive(path):
        raise DamagedError(f"{path}: damaged: of a format that no run writes")
    require_sums(path)
    return state


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
