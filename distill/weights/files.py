"""Read and write weight files: safetensors with the metadata of a network, or PyTorch files of tensors."""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
import safetensors
import safetensors.torch
import torch
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import from_json
from torch import Tensor, nn

from distill.errors import DamagedError, DistillError
from distill.models.limits import MAX_FILE_BYTES
from distill.weights.foreign_names import state_dicts
from distill.weights.normalization import check_mean, check_std
from distill.weights.torch_files import CORRUPT, SAVE_STATE, load_torch_file, require_file
from manifests.support.files import write_atomically

Triple = tuple[float, float, float]
_Split = BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
MeanTriple = Annotated[Triple, AfterValidator(check_mean), _Split]  # also accepts a text such as 0.5,0.4,0.4
StdTriple = Annotated[Triple, AfterValidator(check_std), _Split]
MAX_HEADER_BYTES = 8 << 20  # of a safetensors file: names and positions of the tensors, 100 bytes each

MAX_NAME = 1000  # letters of the name of a class: that of a folder may contain an escape for each byte
_Name = Annotated[str, Field(max_length=MAX_NAME)]
_Names = Annotated[tuple[_Name, ...], BeforeValidator(lambda v: from_json(v) if isinstance(v, str) else v)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """Values that a weight file declares about a network. A field is None if the file does not declare a value."""

    arch: Annotated[str, Field(max_length=1000)] | None = None
    num_classes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    mean: MeanTriple | None = None  # of RGB in [0, 1]; the input is normalized by mean and std
    std: StdTriple | None = None
    classes: _Names = ()  # class names
    data_sha256: str | None = None  # of the labelled images that trained the network
    bn_eps: Annotated[float, Field(gt=0, le=1)] | None = None  # epsilon of batch norms, if not torch's default


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights(Metadata):
    """The content of a weight file.

    ``content`` is a state dict (a dict of parameter names to tensors) if the file declares the architecture.
    Otherwise ``content`` is nested dicts and lists with tensors, in which ``distill.weights.load`` finds the network.
    The tensors are mapped from the file, and may contain NaN or infinity.
    """

    path: Path
    content: Any


def load_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, or a PyTorch file of tensors. No code of the file runs."""
    if path.is_dir():
        raise DistillError(f"{path}: is a folder, expected a weight file; give the path of a file")
    if not path.is_file():
        raise DistillError(f"{path}: the weight file does not exist; check the path")
    if path.suffix == ".safetensors":
        state, text = read_safetensors(path)
        return Weights(path=path, content=state, **vars(_parse(path, text)))
    content = load_torch_file(path)
    tensors = [tensor for _, state in state_dicts(content) for tensor in state.values()]
    if not tensors:
        raise DistillError(f"{path}: contains no state dict (a dict of parameter names to tensors); {SAVE_STATE}")
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    if (needed := sum(storages.values())) > (size := path.stat().st_size):  # torch does not notice missing numbers
        raise DamagedError(f"{path}: has {size} bytes, but its tensors need {needed} bytes; {CORRUPT}")
    return Weights(path=path, content=content)


def read_safetensors(path: Path, max_bytes: int = MAX_FILE_BYTES) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return two dicts: tensors of a safetensors file by name, mapped from the file, and metadata texts by key.

    Raises DamagedError if the file is corrupt or larger than ``max_bytes``.
    """
    try:
        require_file(path, max_bytes)
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > (most := min(MAX_HEADER_BYTES, path.stat().st_size)):
            raise DamagedError(f"{path}: declares a header of {length} bytes, expected at most {most}; {CORRUPT}")
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise DamagedError(f"{path}: is not a valid .safetensors file: {error}; {CORRUPT}") from error
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror or error}; check its permissions") from error


def _parse(path: Path, text: dict[str, str]) -> Metadata:
    names = {field.name for field in dataclasses.fields(Metadata)}
    known: dict[str, Any] = {name: value for name, value in text.items() if name in names}
    try:
        metadata = Metadata(**known)
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        found = f"{fault['loc'][0]} is {str(fault['input'])[:60]!r}: {fault['msg'].removeprefix('Value error, ')}"
        raise DistillError(f"{path}: the metadata is invalid: {found}; download the file again") from error
    if metadata.classes and len(metadata.classes) != metadata.num_classes:
        found = f"classes has {len(metadata.classes)} names, but num_classes is {metadata.num_classes}"
        raise DistillError(f"{path}: the metadata is invalid: {found}; download the file again")
    return metadata


def save_weights(path: Path, model: nn.Module, **metadata: Any) -> None:
    """Write a weight file with the state dict of ``model``. ``metadata`` are values of fields of ``Metadata``."""
    write_atomically(path, encode_weights(model, Metadata(**metadata)))


def encode_weights(model: nn.Module, metadata: Metadata) -> bytes:
    """Return a safetensors file of the state dict of ``model`` and ``metadata``. Equal inputs give equal bytes."""
    fields = ((field.name, getattr(metadata, field.name)) for field in dataclasses.fields(Metadata))
    text = {name: _as_text(value) for name, value in fields if value not in (None, (), "")}
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    addresses = collections.Counter(value.data_ptr() for value in state.values())  # safetensors refuses shared memory
    state = {name: value.clone() if addresses[value.data_ptr()] > 1 else value for name, value in state.items()}
    return _sort_header(safetensors.torch.save(state, text))


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return json.dumps(value) if isinstance(value[0], str) else ",".join(repr(float(each)) for each in value)
    return str(value)


def _sort_header(data: bytes) -> bytes:
    """Return a safetensors file with sorted metadata, because safetensors writes metadata in random order."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def tensors_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the SHA-256, in hex, of ``text`` followed by the names and bytes of ``tensors``, sorted by name."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
