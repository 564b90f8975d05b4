"""Checkpoints: everything a run needs to go on as if it had never stopped; never the teacher."""

import io
from pathlib import Path
from typing import Any

import torch

from distill.errors import DistillError
from distill.weights import load_tensors
from manifests.files import write_atomically

CHECKPOINT_NAME = "checkpoint.pt"
KEYS = frozenset({"identity", "student", "optimizer", "scheduler", "step", "seconds", "losses"})


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state``, built of tensors and plain values, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(folder / CHECKPOINT_NAME, buffer.getvalue())


def load_checkpoint(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The state last saved in a run directory, or None; loaded weights-only.

    Raises:
        DistillError: it is damaged, or belongs to a run whose ``identity`` differs.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None
    state = load_tensors(path)
    held = state.get("identity") if isinstance(state, dict) else None
    if not isinstance(held, dict) or not state.keys() >= KEYS:
        raise DistillError(f"{path}: holds no run's state; choose another --out")
    for key, value in identity.items():
        if held.get(key) != value:
            raise DistillError(
                f"{path}: belongs to a run with {key} {held.get(key)}, this one has {value}; "
                "resume with what it was started with, or choose another --out"
            )
    return state
