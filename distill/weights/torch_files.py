"""What ``torch.save`` wrote, mapped from its file: no code, no bomb, and no tensor that the file does not hold.

torch itself reads none of it, for it believes a file what it says of lengths, and finds its parts in another way than
whoever checked them. Tensors here are the file's own bytes, which take memory when they are looked at: compare names
and shapes first.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import DamagedError, DistillError
from distill.weights.archive import UNREADABLE, Place, is_archive, read_parts
from distill.weights.pickles import MAX_PICKLE_BYTES, Claim, Storage, Unpickler

MAX_FILE_BYTES = 16 << 30
"""Of a weight file or a checkpoint: the largest networks here have 2 GB, and an optimiser keeps two more of each."""
_MAGIC = (0x1950A86A20F9469CFC6C, 1001)
"""Of the format before torch 1.6, and its version."""
_BLOCK = 1 << 20
MAX_DEPTH, MAX_VALUES = 32, 2_000_000
"""Of values in each other, and in all, each as often as it is held."""


def require_file(path: Path, most: int = MAX_FILE_BYTES) -> None:
    """Refuse what is no regular file, or a larger one than any network has.

    Raises:
        DamagedError: it is.
    """
    if not path.is_file():
        raise DamagedError(f"{path}: is no regular file; give a file of weights")
    if (length := path.stat().st_size) > most:
        raise DamagedError(f"{path}: {length} bytes, expected at most {most}")


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote to a file: plain values, and tensors in dicts and lists, mapped, on the CPU.

    Tensors of the format before torch 1.6 may lie at odd addresses: ``owned`` copies them. Nobody has compared the
    sums of others: ``archive.require_sums`` does.

    Raises:
        DamagedError: the file is damaged, is none of torch's, or holds anything else.
        DistillError: it cannot be read.
    """
    try:
        require_file(path)
        value, storages, places = (_read_archive if is_archive(path) else _read_legacy)(path)
        _require_plain(value)
        if strange := sorted(
            key for key in storages if key not in places or storages[key].nbytes > places[key].length
        ):
            raise DamagedError(f"{path}: does not hold the numbers of {strange[0][:100]!r}; get it again")
        mapped = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)
        return _with_tensors(path, value, mapped, places)
    except PermissionError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror}") from error
    except UNREADABLE as error:
        raise DamagedError(f"{path}: damaged, or no PyTorch file of tensors alone") from error


def _read_archive(path: Path) -> tuple[Any, dict[str, Storage], dict[str, Place]]:
    parts = read_parts(path)
    unpickler = Unpickler(io.BytesIO(parts.pickle), str(path))
    value = unpickler.load()
    for key, storage in unpickler.storages.items():
        if key in parts.storages and parts.storages[key].start % storage.dtype.itemsize:
            raise DamagedError(f"{path}: {key[:100]!r} lies at an odd place; save it again with torch.save")
    return value, unpickler.storages, parts.storages


def _read_legacy(path: Path) -> tuple[Any, dict[str, Storage], dict[str, Place]]:
    """Five pickles, the last of them the keys of the storages, which follow, each behind its count of numbers."""
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        *magic, system = (Unpickler(stream, str(path)).load() for _ in range(3))
        if tuple(magic) != _MAGIC or system["little_endian"] is not True:
            raise pickle.UnpicklingError("no file of torch's")
        unpickler = Unpickler(stream, str(path))
        value, storages = unpickler.load(), unpickler.storages
        keys, at = Unpickler(stream, str(path)).load(), stream.tell()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise pickle.UnpicklingError("names of storages that are none")
        if sorted(keys) != sorted(storages):
            raise DamagedError(f"{path}: does not hold the numbers of its tensors; get it again")
        places = {}
        for key in keys:
            file.seek(at)
            count = int.from_bytes(file.read(8), "little")
            places[key] = Place(at + 8, count * storages[key].dtype.itemsize)
            at += 8 + places[key].length
    if at != path.stat().st_size:
        raise DamagedError(f"{path}: {path.stat().st_size} bytes, its tensors end at {at}; get it again")
    return value, storages, places


def _require_plain(root: Any) -> None:
    """Refuse a value that is nested deeply, or holds itself, or would be huge if all it holds twice were written out.

    Raises:
        UnpicklingError: it is.
    """
    sizes: dict[int, int] = {}

    def measure(value: Any, depth: int) -> int:
        if not isinstance(value, dict | list | tuple):
            return 1
        if depth > MAX_DEPTH:
            raise pickle.UnpicklingError("values nested too deeply")
        if id(value) not in sizes:
            parts = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(measure(part, depth + 1) for part in parts)
            if sizes[id(value)] > MAX_VALUES:
                raise pickle.UnpicklingError("too many values")
        return sizes[id(value)]

    measure(root, 0)


def _with_tensors(path: Path, value: Any, mapped: Any, places: dict[str, Place]) -> Any:
    """``value`` with a tensor for each claim in its dicts and lists; in tuples, which nobody uses, claims stay."""
    whole = [value]
    waiting: list[Any] = [whole]
    seen: set[int] = set()
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for key, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(item, Claim):
                holder[key] = _tensor(f"{path}: {str(key)[:100]!r}", item, mapped, places[item.storage.key])
            elif isinstance(item, dict | list):
                waiting.append(item)
    return whole[0]


def _tensor(where: str, claim: Claim, mapped: Any, place: Place) -> Tensor:
    """A tensor whose numbers all lie in its storage, each its own: one that is repeated takes memory when it is used.

    In a storage at an odd place, they lie side by side, so that their bytes can be copied.
    """
    size, count = claim.dtype.itemsize, math.prod(claim.shape)
    last = claim.offset + sum((n - 1) * step for n, step in zip(claim.shape, claim.stride, strict=True))
    held = claim.storage.nbytes // size
    scattered = place.start % size and last - claim.offset != count - 1
    if count and (last >= held or count > held or scattered):
        raise DamagedError(
            f"{where} is no plain tensor: of {claim.shape} numbers it does not hold each; save it again, contiguous"
        )
    part = mapped[place.start : place.start + claim.storage.nbytes]
    return torch.empty(0, dtype=claim.dtype).set_(part, claim.offset, claim.shape, claim.stride)


def owned(tensor: Tensor) -> Tensor:
    """A copy in memory, aligned as torch wants its tensors, of one that lies anywhere."""
    size = tensor.element_size()
    if tensor.numel() == 0 or tensor.data_ptr() % size == 0:
        return tensor.clone()
    start = tensor.storage_offset() * size
    numbers = tensor.untyped_storage()[start : start + tensor.numel() * size].clone()
    return torch.empty(0, dtype=tensor.dtype).set_(numbers, 0, tensor.shape, tensor.stride())


def are_finite(tensor: Tensor) -> bool:
    """Whether it holds no infinity and nothing that is no number; of a million numbers at a time."""
    if not tensor.is_floating_point():
        return True
    return all(bool(torch.isfinite(block.float()).all()) for block in tensor.reshape(-1).split(_BLOCK))
