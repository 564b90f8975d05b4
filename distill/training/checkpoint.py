"""Write and read checkpoints: the state that a run needs to continue as if it had never stopped.

A checkpoint is a safetensors file. A tensor is named by its keys in the state, such as ``optimizer.state.0.exp_avg``.
The metadata contains a JSON text and a SHA-256. The JSON text is the state with ``{"tensor": NAME}`` instead of each
tensor. The SHA-256 covers all tensors and the JSON text. The weights of the teacher are not part of the state.
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
from distill.models.limits import MAX_FILE_BYTES
from distill.training.extension import differ_in_length
from distill.training.run_identity import first_difference
from distill.weights.files import read_safetensors, tensors_digest
from manifests.support.files import write_atomically

CHECKPOINT_NAME = "checkpoint.safetensors"
PREVIOUS_NAME = "checkpoint.previous.safetensors"
DAMAGED_NAME = "checkpoint.damaged.safetensors"
KEYS = frozenset(
    {"identity", "arithmetic", "student", "optimizer", "scaler", "scheduler", "average", "step", "seconds", "losses"}
)
MAX_ARITHMETIC_LETTERS = 10_000  # ``arithmetic`` is printed if it has changed


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and JSON values) as the checkpoint in ``folder``.

    Rename an existing checkpoint to PREVIOUS_NAME. A reader gets decimal keys as integers, and tuples as lists.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_split(state, "", tensors), separators=(",", ":"))
    data = safetensors.torch.save(tensors, {"state": text, "sha256": tensors_digest(tensors, text)})
    path = folder / CHECKPOINT_NAME
    if path.exists():
        path.replace(folder / PREVIOUS_NAME)  # if the process is killed here, a run resumes from the previous one
    write_atomically(path, data)


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` with placeholders for tensors. Add each to ``tensors``. Tensor names begin with ``name``."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name} | ({"channels_last": True} if _is_channels_last(value) else {})
    if isinstance(value, dict):
        return {str(key): _split(item, f"{name}.{key}".lstrip("."), tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{name}.{number}", tensors) for number, item in enumerate(value)]
    return value


def _is_channels_last(tensor: Tensor) -> bool:
    if tensor.ndim != 4:
        return False
    return tensor.stride() == torch.empty_like(tensor, device="meta", memory_format=torch.channels_last).stride()


def _join(value: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """Return the tensor of a placeholder. Return any other dict ``value`` with decimal keys as integers."""
    if isinstance(value.get("tensor"), str) and value.keys() <= {"tensor", "channels_last"}:
        tensor = tensors[value["tensor"]]
        if value.get("channels_last"):
            return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor)
        return tensor
    return {int(key) if key.isdecimal() else key: item for key, item in value.items()}


def has_checkpoint(folder: Path) -> bool:
    """Return whether ``folder`` contains a checkpoint."""
    return any((folder / name).is_file() for name in (CHECKPOINT_NAME, PREVIOUS_NAME))


def load_checkpoint(
    folder: Path, identity: dict[str, Any], max_bytes: int, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the state in the last undamaged checkpoint in ``folder``, or None if there is no checkpoint.

    The checkpoint must have at most ``max_bytes`` and belong to the run that ``identity`` describes. The tensors are
    mapped from the file, so copy the tensors that you keep. ``say`` prints a message about a damaged checkpoint.
    """
    paths = [path for name in (CHECKPOINT_NAME, PREVIOUS_NAME) if (path := folder / name).exists()]
    for path in paths:
        try:
            state = read_checkpoint(path, max_bytes)
        except DamagedError as error:
            damage = str(error).rsplit("; ", 1)[0]  # without the advice for weight files
            if path == paths[-1]:
                raise DistillError(f"{damage}; choose another --out to train from the first step") from error
            say(f"{damage}; the run continues from the previous checkpoint, {PREVIOUS_NAME}")
            path.replace(folder / DAMAGED_NAME)  # otherwise the next save would rename it to PREVIOUS_NAME
            continue
        require_identity(state, identity, path)
        return state
    return None


def read_checkpoint(path: Path, max_bytes: int = MAX_FILE_BYTES) -> Any:
    """Return the state in the checkpoint file ``path`` of any run. A file of more than ``max_bytes`` is an error."""
    tensors, metadata = read_safetensors(path, max_bytes)
    text = metadata.get("state", "")
    if metadata.get("sha256") != tensors_digest(tensors, text):
        raise DamagedError(f"{path}: the checkpoint is damaged: its content differs from the SHA-256 in its metadata")
    try:
        return json.loads(text, object_hook=functools.partial(_join, tensors=tensors))
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise DamagedError(f"{path}: the checkpoint is damaged: its metadata is not the state of a run") from error


def require_identity(state: Any, identity: dict[str, Any], path: Path) -> None:
    """Check that ``state``, read from ``path``, belongs to the run of ``identity``, or to one of another length."""
    if not (
        isinstance(state, dict)
        and state.keys() >= KEYS
        and all(isinstance(state[key], dict) for key in ("identity", "arithmetic"))
        and len(str(state["arithmetic"])) <= MAX_ARITHMETIC_LETTERS
    ):
        raise DistillError(f"{path}: the file does not contain the state of a run; choose another --out")
    for key, value in identity.items():
        if (before := state["identity"].get(key)) != value and not (
            key == "train" and differ_in_length(before, value)
        ):
            try:  # settings are JSON texts, and digests are not
                old, new = json.loads(before), json.loads(value)
            except (ValueError, TypeError, RecursionError):
                old, new = str(before), value
            label, was, now = first_difference({key: old}, {key: new}) or (key, before, value)
            found = f"the checkpoint belongs to a run with other values: {label} was {was}, is now {now}"
            action = "resume the run with the options that it started with, or choose another --out"
            raise DistillError(f"{path}: {found}; {action}")
