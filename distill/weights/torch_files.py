"""Read files of ``torch.save`` with ``torch.load(weights_only=True)``, so that no code of a file runs."""

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import DamagedError, DistillError
from distill.models.limits import MAX_FILE_BYTES
from manifests.errors import DECODE_ERRORS

MAX_LEGACY_BYTES = 1 << 30  # of a file before torch 1.6, which is read into memory; VGG-19 has 0.6 GB
MAX_PICKLE_BYTES = 5 << 20  # of names, shapes and plain values in a zip file; ResNet-1202 has 3 MB
CORRUPT = "the file is corrupt; download it again"
SAVE_STATE = "if you trust the file, save only the state dict of the network: torch.save(model.state_dict(), FILE)"


class _Ignored:
    """Replaces an object that is not a tensor in a checkpoint. The content of the object is ignored."""

    def __new__(cls, *arguments: object) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _PlainDict:
    """Replaces a subclass of ``dict`` in a checkpoint. ``_PlainDict()`` is an empty ``dict``, which torch fills."""

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
_SAFE_GLOBALS: list[Any] = [(_Ignored, name) for name in _VALUES] + [(_PlainDict, name) for name in _DICTS]
"""Pairs of a replacement and the name of a type. If a file contains the type, torch creates the replacement."""


def load_torch_file(path: Path) -> Any:
    """Return the content of a file of ``torch.save``, on the CPU: tensors and plain values in dicts and lists.

    Since version 1.6 torch writes zip files. Tensors of a zip file are mapped, and need memory only when used.
    Raises DamagedError if the file is corrupt or too large, or contains objects of a type that is not allowed.
    """
    try:
        mapped = is_zip(path)
        if mapped:
            _check_zip(path)
        require_file(path, MAX_FILE_BYTES if mapped else MAX_LEGACY_BYTES)
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except PermissionError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    except (*DECODE_ERRORS, zipfile.BadZipFile) as error:
        raise DamagedError(f"{path}: {_describe(str(error))}") from error


def require_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Check that ``path`` is a regular file of at most ``max_bytes``."""
    if not path.is_file():
        raise DamagedError(f"{path}: is a folder or a device, expected a file; choose another file")
    if (num_bytes := path.stat().st_size) > max_bytes:
        raise DamagedError(f"{path}: has {num_bytes} bytes, expected at most {max_bytes}; choose another weight file")


def is_zip(path: Path) -> bool:
    """Return whether torch reads a file as a zip file. Other files have the format of torch before 1.6."""
    require_file(path)
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_zip(path: Path) -> None:
    """Check that a zip file contains tensors and needs little memory to read. Only the zip directory is read."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise DamagedError(f"{path}: is a TorchScript program, which might run code when it is read; {SAVE_STATE}")
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise DamagedError(f"{path}: the zip file is compressed, expected no compression; write it with torch.save")
    num_bytes = sum(part.file_size for part in parts if "/data/" not in part.filename)
    if num_bytes > MAX_PICKLE_BYTES:
        found = f"the names and plain values have {num_bytes} bytes, expected at most {MAX_PICKLE_BYTES} bytes"
        raise DamagedError(f"{path}: {found}; {SAVE_STATE}")


def _describe(message: str) -> str:
    """Return in one line why torch did not read a file, and what the user can do."""
    if found := re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", message):
        name = re.sub(r"[^0-9A-Za-z_.]", "?", found[1])[:100]
        return f"contains an object {name}, which might run code when it is read; {SAVE_STATE}"
    return f"is corrupt, or is not a PyTorch file of tensors; download it again, or {SAVE_STATE}"


def require_checksums(path: Path) -> None:
    """Check the checksum of every part of a file, if the file is a zip file. torch does not check the parts."""
    if not is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (*DECODE_ERRORS, zipfile.BadZipFile) as error:
        raise DamagedError(f"{path}: {_describe(str(error))}") from error
    if broken is not None:
        raise DamagedError(f"{path}: the part {broken[:100]!r} has a wrong checksum; {CORRUPT}")


def are_finite(tensor: Tensor) -> bool:
    """Return whether all numbers of a tensor are finite in float32. This makes no copy of a large tensor."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    values = tensor.float() if tensor.itemsize == 1 else tensor  # torch computes nothing in 8 bits
    return bool(torch.stack(values.aminmax()).float().isfinite().all())
