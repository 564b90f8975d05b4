"""Weight files: safetensors with what a network needs to be used, or PyTorch files read weights-only."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from distill.errors import DistillError
from distill.tensors import load_tensors, require_file
from distill.wrapped import state_dicts
from manifests.files import write_atomically

Triple = tuple[float, float, float]
MAX_CLASSES = 100_000
MAX_HEADER_BYTES = 8 << 20
"""Of a safetensors file: its tensors' names and places, 100 bytes each."""
MAX_ARCH_LETTERS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """What a weight file holds, and what it says of its network: each is None where the file does not say.

    ``held`` is a state dict where the file says its network, else dicts and lists in each other with tensors in them,
    among which ``distill.fit`` finds the network. The tensors are mapped: they take memory when they are looked at,
    and nobody has looked yet. ``mean`` and ``std`` normalise RGB values in [0, 1].
    """

    path: Path
    held: Any
    arch: str | None = None
    num_classes: int | None = None
    mean: Triple | None = None
    std: Triple | None = None


def load_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, or a PyTorch file that holds tensors alone.

    Raises:
        DistillError: the file is missing, unreadable, damaged, or would need code to be run.
    """
    if path.is_dir():
        raise DistillError(f"{path}: is a folder; give the weight file in it, such as student.safetensors")
    if not path.is_file():
        raise DistillError(f"{path}: no such weight file")
    try:
        if path.suffix == ".safetensors":
            _require_header(path)
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            return _with_metadata(path, safetensors.torch.load_file(path), metadata)
    except (safetensors.SafetensorError, OSError) as error:
        raise DistillError(f"{path}: not readable as weights: {error}; expected a .safetensors file") from error
    held = load_tensors(path)
    if not any(state_dicts(held)):
        raise DistillError(
            f"{path}: holds no state dict, expected a dict of parameter names to tensors, by itself or in other dicts"
        )
    return Weights(path=path, held=held)


def _require_header(path: Path) -> None:
    """Refuse a safetensors file whose header, which is read whole, is longer than one needs to be.

    Raises:
        DistillError: it is, or the file is no regular file of a network's size.
    """
    require_file(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise DistillError(f"{path}: a header of {length} bytes, expected at most {MAX_HEADER_BYTES}; get it again")


def _with_metadata(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> Weights:
    def triple(name: str) -> Triple | None:
        if name not in metadata:
            return None
        parts = tuple(float(part) for part in metadata[name].split(","))
        if len(parts) != 3:
            raise ValueError(name)
        return parts

    try:
        weights = Weights(
            path=path,
            held=state,
            arch=metadata.get("arch"),
            num_classes=int(metadata["num_classes"]) if "num_classes" in metadata else None,
            mean=triple("mean"),
            std=triple("std"),
        )
        if weights.num_classes is not None and not 1 <= weights.num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes is {weights.num_classes}")
        if len(weights.arch or "") > MAX_ARCH_LETTERS:
            raise ValueError(f"arch has {len(weights.arch or '')} letters")
        return weights
    except ValueError as error:
        raise DistillError(
            f"{path}: its metadata is damaged: {error}; expected 'num_classes' as an integer, "
            "'mean' and 'std' as three numbers with commas"
        ) from error


def save_weights(path: Path, model: nn.Module, *, arch: str, num_classes: int, mean: Triple, std: Triple) -> None:
    """Write a state dict as safetensors, with what ``load_weights`` gives back, whole or not at all."""
    write_atomically(path, encode_weights(model, arch=arch, num_classes=num_classes, mean=mean, std=std))


def encode_weights(model: nn.Module, *, arch: str, num_classes: int, mean: Triple, std: Triple) -> bytes:
    """What ``save_weights`` writes: the same bytes for the same network."""
    metadata = {
        "arch": arch,
        "num_classes": str(num_classes),
        "mean": ",".join(repr(float(value)) for value in mean),
        "std": ",".join(repr(float(value)) for value in std),
    }
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return _sorted_header(safetensors.torch.save(state, metadata))


def _sorted_header(data: bytes) -> bytes:
    """A safetensors file with its metadata in order: the library's order varies from run to run."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def state_digest(model: nn.Module) -> str:
    """SHA-256, as hex, over every parameter and buffer of a model, with its name."""
    state = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()
