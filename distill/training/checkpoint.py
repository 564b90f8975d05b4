"""Checkpoints: the state that a run needs to continue as if it had never stopped; never the teacher's.

A checkpoint is a safetensors file. Its tensors are named by their place in the state, such as
``optimizer.state.0.exp_avg``; its metadata holds the rest as JSON, in which ``{"tensor": NAME}`` stands for a tensor,
and the SHA-256 of both.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distill.errors import DamagedError, DistillError
from distill.weights.files import read_safetensors, tensors_digest
from distill.weights.torch_files import MAX_FILE_BYTES
from manifests.support.files import write_atomically

CHECKPOINT_NAME = "checkpoint.safetensors"
PREVIOUS_NAME = "checkpoint.previous.safetensors"
DAMAGED_NAME = "checkpoint.damaged.safetensors"
KEYS = frozenset(
    {"identity", "arithmetic", "student", "optimizer", "scaler", "scheduler", "average", "step", "seconds", "losses"}
)

MAX_ARITHMETIC_LETTERS = 10_000  # of what rounding depends on, which is shown to the user if it changed


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state``, built of tensors and JSON values, atomically; the last checkpoint is kept as the previous one.

    Keys that are integers stay integers; tuples become lists.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_split(state, "", tensors), separators=(",", ":"))
    data = safetensors.torch.save(tensors, {"state": text, "sha256": tensors_digest(tensors, text)})
    path = folder / CHECKPOINT_NAME
    if path.exists():
        path.replace(folder / PREVIOUS_NAME)  # if the process is killed here, a run resumes from the previous one
    write_atomically(path, data)


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` with a placeholder for each of its tensors, which are added to ``tensors``."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name} | ({"channels_last": True} if _is_channels_last(value) else {})
    if isinstance(value, dict):
        return {str(key): _split(item, f"{name}.{key}".lstrip("."), tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{name}.{number}", tensors) for number, item in enumerate(value)]
    return value


def _is_channels_last(tensor: Tensor) -> bool:
    """Tell whether a tensor is stored with its channels last: fused optimizers need their state stored as before."""
    if tensor.ndim != 4:
        return False
    outline = torch.empty_like(tensor, device="meta", memory_format=torch.channels_last)
    return tensor.stride() == outline.stride()


def _join(value: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """Return the tensor for which a JSON object stands, or the object with integers for keys that are numbers."""
    if "tensor" in value and value.keys() <= {"tensor", "channels_last"}:
        tensor = tensors[value["tensor"]]
        if value.get("channels_last"):
            return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)
        return tensor
    return {int(key) if key.isdecimal() else key: item for key, item in value.items()}


def holds_checkpoint(folder: Path) -> bool:
    """Tell whether ``folder`` holds a checkpoint."""
    return any((folder / name).is_file() for name in (CHECKPOINT_NAME, PREVIOUS_NAME))


def load_checkpoint(
    folder: Path, identity: dict[str, Any], max_bytes: int, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the last undamaged state saved in a run directory, or None if there is no checkpoint.

    Its tensors are mapped from a file of at most ``max_bytes``: copy those that you keep.
    """
    paths = [path for name in (CHECKPOINT_NAME, PREVIOUS_NAME) if (path := folder / name).exists()]
    for path in paths:
        try:
            state = read_checkpoint(path, max_bytes)
        except DamagedError as error:
            if path == paths[-1]:
                raise
            say(f"{error}; resuming from {PREVIOUS_NAME}, the one before it")
            path.replace(folder / DAMAGED_NAME)  # or the next checkpoint would make it the previous one
            continue
        require_identity(state, identity, path)
        return state
    return None


def read_checkpoint(path: Path, max_bytes: int = MAX_FILE_BYTES) -> Any:
    """Return the state in a checkpoint, whichever run it belongs to.

    Raises:
        DamagedError: it is damaged, or longer than ``max_bytes``.
        DistillError: it cannot be read.
    """
    tensors, metadata = read_safetensors(path, max_bytes)
    text = metadata.get("state", "")
    if metadata.get("sha256") != tensors_digest(tensors, text):
        raise DamagedError(f"{path}: damaged: its SHA-256 is not the one written in it")
    try:
        return json.loads(text, object_hook=functools.partial(_join, tensors=tensors))
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise DamagedError(f"{path}: damaged: its metadata holds no state of a run") from error


def require_identity(state: Any, identity: dict[str, Any], path: Path) -> None:
    """Check that ``state``, loaded from ``path``, belongs to the run that ``identity`` describes."""
    if not (
        isinstance(state, dict)
        and state.keys() >= KEYS
        and all(isinstance(state[key], dict) for key in ("identity", "arithmetic"))
        and len(str(state["arithmetic"])) <= MAX_ARITHMETIC_LETTERS
    ):
        raise DistillError(f"{path}: holds no state of a run; choose another --out")
    held = state["identity"]
    for key, value in identity.items():
        if held.get(key) != value:
            raise DistillError(
                f"{path}: belongs to a run with {key} {str(held.get(key))[:500]}, this one has {value}; "
                "resume with what it was started with, or choose another --out"
            )
