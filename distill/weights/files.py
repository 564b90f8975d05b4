"""Weight files: safetensors with what a network needs to be used, or PyTorch files read weights-only."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import safetensors
import safetensors.torch
import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from distill.errors import DamagedError, DistillError
from distill.weights.normalization import check_mean, check_std
from distill.weights.torch_files import MAX_FILE_BYTES, load_tensors, require_file
from distill.weights.unwrap import state_dicts
from manifests.support.files import write_atomically

Triple = tuple[float, float, float]
MeanTriple = Annotated[Triple, AfterValidator(check_mean)]
StdTriple = Annotated[Triple, AfterValidator(check_std)]
MAX_CLASSES = 100_000
MAX_HEADER_BYTES = 8 << 20
"""Of a safetensors file: its tensors' names and places, 100 bytes each."""
MAX_ARCH_LETTERS = 200
MAX_NAME_LETTERS = 1000
"""Of a class, which may be a folder's name with each byte written out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """What a weight file holds, and what it says of its network: each is None where the file does not say.

    ``held`` is a state dict where the file says its network, else dicts and lists in each other with tensors in them,
    among which ``distill.weights.load`` finds the network. The tensors are mapped: they take memory when read,
    and nobody has looked yet. ``mean`` and ``std`` normalise RGB values in [0, 1]. ``classes`` are the class names,
    and ``data_sha256`` is the digest of the labelled images that the network was trained on. ``bn_eps`` is that of
    the batch norms where it is not the network's usual one.
    """

    path: Path
    held: Any
    arch: str | None = None
    num_classes: int | None = None
    mean: Triple | None = None
    std: Triple | None = None
    classes: tuple[str, ...] = ()
    data_sha256: str | None = None
    bn_eps: float | None = None


def load_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, or a PyTorch file that holds tensors alone.

    Raises:
        DistillError: the file is missing, unreadable, damaged, or would need code to be run.
    """
    if path.is_dir():
        raise DistillError(f"{path}: is a folder; give the weight file in it, such as student.safetensors")
    if not path.is_file():
        raise DistillError(f"{path}: no such weight file")
    if path.suffix == ".safetensors":
        return _with_metadata(path, *read_safetensors(path))
    held = load_tensors(path)
    if not any(state_dicts(held)):
        raise DistillError(
            f"{path}: holds no state dict, expected a dict of parameter names to tensors, by itself or in other dicts"
        )
    return Weights(path=path, held=held)


def read_safetensors(path: Path, max_bytes: int = MAX_FILE_BYTES) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, mapped from it, and its metadata.

    Raises:
        DamagedError: the file is damaged, or longer than ``max_bytes``, or its header is longer than it needs to be.
        DistillError: it cannot be read.
    """
    try:
        require_file(path, max_bytes)
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > (longest := min(MAX_HEADER_BYTES, path.stat().st_size)):
            raise DamagedError(
                f"{path}: damaged: a header of {length} bytes, expected at most {longest}; get it again"
            )
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise DamagedError(f"{path}: damaged: {error}; expected a .safetensors file; get it again") from error
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror or error}") from error


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
            classes=_class_names(metadata.get("classes")),
            data_sha256=metadata.get("data_sha256"),
            bn_eps=float(metadata["bn_eps"]) if "bn_eps" in metadata else None,
        )
        if weights.num_classes is not None and not 1 <= weights.num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes is {weights.num_classes}")
        if weights.bn_eps is not None and not 0 < weights.bn_eps <= 1:
            raise ValueError(f"bn_eps is {weights.bn_eps}")
        if len(weights.arch or "") > MAX_ARCH_LETTERS:
            raise ValueError(f"arch has {len(weights.arch or '')} letters")
        if weights.classes and len(weights.classes) != weights.num_classes:
            raise ValueError(f"classes has {len(weights.classes)} names, num_classes is {weights.num_classes}")
        return weights
    except ValueError as error:
        raise DistillError(
            f"{path}: its metadata is damaged: {error}; expected 'num_classes' as an integer, "
            "'mean' and 'std' as three numbers with commas, 'bn_eps' as a number above 0 up to 1"
        ) from error


def _class_names(text: str | None) -> tuple[str, ...]:
    names = [] if text is None else json.loads(text)
    if not isinstance(names, list) or not all(
        isinstance(name, str) and len(name) <= MAX_NAME_LETTERS for name in names
    ):
        raise ValueError(f"classes is no list of names of at most {MAX_NAME_LETTERS} letters")
    return tuple(names)


def save_weights(path: Path, model: nn.Module, **about: Any) -> None:
    """Write a state dict as safetensors, whole or not at all; ``about`` is as for ``encode_weights``."""
    write_atomically(path, encode_weights(model, **about))


def encode_weights(
    model: nn.Module,
    *,
    arch: str,
    num_classes: int,
    mean: Triple,
    std: Triple,
    classes: Sequence[str] = (),
    data_sha256: str | None = None,
    bn_eps: float | None = None,
) -> bytes:
    """Return a state dict as safetensors, with what ``load_weights`` gives back: equal bytes for equal networks."""
    metadata = {
        "arch": arch,
        "num_classes": str(num_classes),
        "mean": ",".join(repr(float(value)) for value in mean),
        "std": ",".join(repr(float(value)) for value in std),
    }
    metadata |= {"classes": json.dumps(list(classes))} if classes else {}
    metadata |= {"data_sha256": data_sha256} if data_sha256 else {}
    metadata |= {} if bn_eps is None else {"bn_eps": repr(float(bn_eps))}
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
    """Return the SHA-256, as hex, of every parameter and buffer of a model and of their names."""
    return tensors_digest(model.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the SHA-256, as hex, of ``text`` and of the bytes and names of ``tensors``, in order of their names."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
