"""Weight files: safetensors with what is needed to use a network, or PyTorch files of tensors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
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
from distill.weights.normalization import check_mean, check_std
from distill.weights.torch_files import MAX_FILE_BYTES, load_torch_file, require_file
from distill.weights.unwrap import state_dicts
from manifests.support.files import write_atomically

Triple = tuple[float, float, float]
MeanTriple = Annotated[Triple, AfterValidator(check_mean)]
StdTriple = Annotated[Triple, AfterValidator(check_std)]
MAX_HEADER_BYTES = 8 << 20  # of a safetensors file: names and positions of its tensors, 100 bytes each

_Numbers = Annotated[Triple, BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)]
_Name = Annotated[str, Field(max_length=1000)]  # a folder's name may have each byte written out
_Names = Annotated[tuple[_Name, ...], BeforeValidator(lambda v: from_json(v) if isinstance(v, str) else v)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """The content of a weight file, and its metadata, each None where the file has none.

    ``held`` is a state dict if the file names its network, else nested dicts and lists with tensors, among which
    ``distill.weights.load`` finds the network. The tensors are mapped from the file; their values are not checked.
    ``mean`` and ``std`` normalize RGB values in [0, 1]. ``classes`` are the class names. ``data_sha256`` is that of
    the labeled images that the network was trained on. ``bn_eps`` is the epsilon of the batch norms if it is not the
    network's usual one.
    """

    path: Path
    held: Any
    arch: Annotated[str, Field(max_length=200)] | None = None
    num_classes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    mean: _Numbers | None = None
    std: _Numbers | None = None
    classes: _Names = ()
    data_sha256: str | None = None
    bn_eps: Annotated[float, Field(gt=0, le=1)] | None = None


_METADATA = ("arch", "num_classes", "mean", "std", "classes", "data_sha256", "bn_eps")


def load_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, or a PyTorch file of tensors. No code of a file runs."""
    if path.is_dir():
        raise DistillError(f"{path}: is a folder; give the weight file in it, such as student.safetensors")
    if not path.is_file():
        raise DistillError(f"{path}: no such weight file")
    if path.suffix == ".safetensors":
        return _with_metadata(path, *read_safetensors(path))
    held = load_torch_file(path)
    tensors = [tensor for _, state in state_dicts(held) for tensor in state.values()]
    if not tensors:
        expected = "a dict of parameter names to tensors, by itself or in other dicts"
        raise DistillError(f"{path}: holds no state dict, expected {expected}")
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    if sum(storages.values()) > path.stat().st_size:  # torch does not notice if numbers are missing
        raise DamagedError(f"{path}: does not hold the numbers of its tensors; get it again")
    return Weights(path=path, held=held)


def read_safetensors(path: Path, max_bytes: int = MAX_FILE_BYTES) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file of at most ``max_bytes``, mapped from it, and its metadata.

    Raises:
        DamagedError: the file is damaged, or longer.
        DistillError: it cannot be read.
    """
    try:
        require_file(path, max_bytes)
        with path.open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > (most := min(MAX_HEADER_BYTES, path.stat().st_size)):
            raise DamagedError(f"{path}: damaged: a header of {length} bytes, expected at most {most}; get it again")
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise DamagedError(f"{path}: damaged: {error}; expected a .safetensors file; get it again") from error
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror or error}") from error


def _with_metadata(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> Weights:
    known: dict[str, Any] = {name: metadata[name] for name in _METADATA if name in metadata}
    try:
        weights = Weights(path=path, held=state, **known)
    except pydantic.ValidationError as error:
        fault = error.errors()[0]
        found = f"{fault['loc'][0]} is {str(fault['input'])[:60]!r}: {fault['msg']}"
        raise DistillError(f"{path}: its metadata is damaged: {found}; get it again") from error
    if weights.classes and len(weights.classes) != weights.num_classes:
        found = f"classes has {len(weights.classes)} names, num_classes is {weights.num_classes}"
        raise DistillError(f"{path}: its metadata is damaged: {found}; get it again")
    return weights


def save_weights(path: Path, model: nn.Module, **metadata: Any) -> None:
    """Write the state dict of ``model`` atomically; ``metadata`` is as for ``encode_weights``."""
    write_atomically(path, encode_weights(model, **metadata))


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
    """Return a state dict as safetensors, with the metadata of ``Weights``: equal bytes for equal networks."""
    metadata = {"arch": arch, "num_classes": str(num_classes)}
    metadata |= {name: ",".join(repr(float(v)) for v in values) for name, values in (("mean", mean), ("std", std))}
    metadata |= {"classes": json.dumps(list(classes))} if classes else {}
    metadata |= {"data_sha256": data_sha256} if data_sha256 else {}
    metadata |= {} if bn_eps is None else {"bn_eps": repr(float(bn_eps))}
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return _sort_header(safetensors.torch.save(state, metadata))


def _sort_header(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in order: the library's order varies from run to run."""
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
