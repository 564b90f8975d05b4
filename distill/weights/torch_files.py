"""Files of ``torch.save``, read by ``torch.load(weights_only=True)``: no code of a file runs."""

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import DamagedError, DistillError
from manifests.errors import DECODE_ERRORS

MAX_FILE_BYTES = 16 << 30  # the largest networks have 2 GB, and an optimizer keeps two more of each
MAX_LEGACY_BYTES = 1 << 30  # of a file before torch 1.6, which is read into memory; VGG-19 has 0.6 GB
MAX_PICKLE_BYTES = 5 << 20  # of names, shapes and plain values in a zip file; ResNet-1202 has 3 MB


class _Ignored:
    """Replaces a value beside the networks in a checkpoint; nothing that the file says of the value is used."""

    def __new__(cls, *arguments: object) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _PlainDict:
    """Replaces a subclass of ``dict``: calling it returns an empty ``dict``, which torch then fills."""

    def __new__(cls, *arguments: object) -> Any:
        return {}


_VALUES = (
    *("argparse.Namespace", "types.SimpleNamespace"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath"),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath", "pathlib._local.PurePosixPath"),
    *("builtins.frozenset", "builtins.list", "builtins.dict", "builtins.int"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
)
_DICTS = (
    "collections.defaultdict",
    *(f"{name}.utilities.parsing.AttributeDict" for name in ("pytorch_lightning", "lightning.pytorch")),
    *(f"{name}.utilities.data.AttributeDict" for name in ("lightning_fabric", "lightning.fabric")),
)
_SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_Ignored, name) for name in _VALUES),
    *((_PlainDict, name) for name in _DICTS),
]
"""What published checkpoints hold beside networks, and what replaces it while torch reads them."""


def load_torch_file(path: Path) -> Any:
    """Return what ``torch.save`` wrote to a file, on the CPU: tensors and plain values in dicts and lists.

    The tensors of a zip file, as torch writes since 1.6, are mapped: they take memory when they are read.

    Raises:
        DamagedError: the file is damaged, too large, or holds more than tensors and plain values.
        DistillError: it cannot be read.
    """
    try:
        mapped = is_zip(path)
        if mapped:
            _check_zip(path)
        require_file(path, MAX_FILE_BYTES if mapped else MAX_LEGACY_BYTES)
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except PermissionError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror}") from error
    except (*DECODE_ERRORS, zipfile.BadZipFile) as error:
        raise DamagedError(f"{path}: {_describe(str(error))}") from error


def require_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Check that ``path`` is a regular file of at most ``max_bytes``."""
    if not path.is_file():
        raise DamagedError(f"{path}: is no regular file; give a file of weights")
    if (num_bytes := path.stat().st_size) > max_bytes:
        raise DamagedError(f"{path}: {num_bytes} bytes, expected at most {max_bytes}")


def is_zip(path: Path) -> bool:
    """Return whether torch reads a file as a zip file, and not as one of its format before 1.6."""
    require_file(path)
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_zip(path: Path) -> None:
    """Check, from its directory alone, that a zip file is one of tensors and that reading it takes little memory."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise DamagedError(f"{path}: is a TorchScript program, which is code, so it is not read; {_SAVE_STATE}")
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise DamagedError(f"{path}: its parts are compressed; save it again with torch.save")
    num_bytes = sum(part.file_size for part in parts if "/data/" not in part.filename)
    if num_bytes > MAX_PICKLE_BYTES:
        found = f"names and values of {num_bytes} bytes, expected at most {MAX_PICKLE_BYTES}"
        raise DamagedError(f"{path}: {found}; save its state dict alone")


_SAVE_STATE = "where you trust it, save its state dict alone: torch.save(model.state_dict(), FILE)"


def _describe(message: str) -> str:
    """Return in one line why torch did not read a file, and what to do."""
    if found := re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", message):
        name = re.sub(r"[^0-9A-Za-z_.]", "?", found[1])[:100]
        return f"asks for {name}, which is no tensor and might run code, so it is not read; {_SAVE_STATE}"
    if "legacy .tar format" in message:
        return "has the format before torch 0.1.10; load it with torch.load and save it again with torch.save"
    return "damaged, or no PyTorch file of tensors alone; get it again, or save the network's state dict"


def require_checksums(path: Path) -> None:
    """Compare the checksums that a zip file holds of its parts, which torch does not."""
    if not is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (*DECODE_ERRORS, zipfile.BadZipFile) as error:
        raise DamagedError(f"{path}: {_describe(str(error))}") from error
    if broken is not None:
        raise DamagedError(f"{path}: damaged: {broken[:100]!r} is not what was written; get it again")


def are_finite(tensor: Tensor) -> bool:
    """Return whether a tensor holds no infinity and no NaN, as float32. Takes no memory of the tensor's size."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    values = tensor.float() if tensor.itemsize == 1 else tensor  # torch computes nothing in 8 bits
    return bool(torch.stack(values.aminmax()).float().isfinite().all())
