"""What ``torch.save`` wrote, read weights-only and no larger than its file: no code, no bomb, no made-up tensor."""

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import DamagedError, DistillError
from manifests.errors import TORN

MAX_FILE_BYTES = 16 << 30
"""Of a weight file or a checkpoint: the largest networks here have 2 GB, and an optimiser keeps two more of each."""
MAX_PARTS = 50_000
"""Of a zip file: a tensor each, and ResNet-1202 has 7,000."""
_LOCAL_HEADER = 30


def require_file(path: Path) -> None:
    """Refuse what is no regular file, or a larger one than any network has.

    Raises:
        DamagedError: it is.
    """
    if not path.is_file():
        raise DamagedError(f"{path}: is no regular file; give a file of weights")
    if (length := path.stat().st_size) > MAX_FILE_BYTES:
        raise DamagedError(f"{path}: {length} bytes, expected at most {MAX_FILE_BYTES}")


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote to a file, built of tensors and plain values, on the CPU; no code is run.

    Raises:
        DamagedError: the file is damaged, is none of torch's, or holds anything else.
        DistillError: it cannot be read.
    """
    try:
        require_file(path)
        _require_plain_zip(path)
        value = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror}") from error
    except TORN as error:
        if isinstance(error, pickle.UnpicklingError) and (match := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise DamagedError(
                f"{path}: asks for {match[1]}, which is no tensor and might run code, so it is not read; where you "
                "trust it, save its state dict alone: torch.save(model.state_dict(), FILE)"
            ) from error
        raise DamagedError(f"{path}: damaged, or no PyTorch file of tensors alone") from error
    for name, tensor in _tensors_in(value):
        _require_whole(path, name, tensor)
    return value


def _require_plain_zip(path: Path) -> None:
    """Look at a zip file, which torch writes, before it is unpacked: its parts lie one behind another, as they are.

    Then compare the sums it holds of them; torch itself does not.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        parts = sorted(archive.infolist(), key=lambda part: part.header_offset)
        if len(parts) > MAX_PARTS:
            raise DamagedError(f"{path}: {len(parts)} parts, expected at most {MAX_PARTS}")
        ends = [*(part.header_offset for part in parts[1:]), path.stat().st_size]
        for part, end in zip(parts, ends, strict=True):
            if part.compress_type != zipfile.ZIP_STORED:
                raise DamagedError(f"{path}: its parts are compressed; save it again with torch.save")
            if part.header_offset + _LOCAL_HEADER + part.file_size > end:
                raise DamagedError(f"{path}: its parts overlap, or are longer than the file; get it again")
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(broken)


def _tensors_in(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in plain containers, each once however often it is referred to, with the last key before it."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        name, item = waiting.pop()
        if id(item) in seen:
            continue
        if isinstance(item, Tensor):
            seen.add(id(item))
            yield name, item
        elif isinstance(item, dict):
            seen.add(id(item))
            waiting += [(str(key)[:100], inner) for key, inner in item.items()]
        elif isinstance(item, list | tuple | set):
            seen.add(id(item))
            waiting += [(name, inner) for inner in item]


def _require_whole(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse a tensor that is not there, number by number: one that is repeated takes memory only when it is used."""
    plain = tensor.layout == torch.strided and not tensor.is_meta
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise DamagedError(
            f"{path}: {name!r} is no plain tensor: of {tuple(tensor.shape)} numbers it does not hold each; "
            "save it again, contiguous"
        )
