"""Decode verified shards into one uint8 array, with several processes that write into it."""

import contextlib
import math
import mmap
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from webdataset.tariterators import group_by_keys, tar_file_expander

from distill.data.workers import Workers
from distill.errors import DistillError
from manifests import PatchSet
from manifests.errors import PatchSetError
from manifests.support.processes import usable_cores
from manifests.untrusted.images import decode_patch

Pixels = npt.NDArray[np.uint8]


def shape_of(patchset: PatchSet) -> tuple[int, int, int, int]:
    """Return the shape of a decoded set: (n, size, size, 3)."""
    manifest = patchset.manifest
    return manifest.n, manifest.size, manifest.size, 3


def shared_memory(shape: tuple[int, ...]) -> Pixels:
    """Return an empty array in memory shared with processes forked later."""
    return np.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=np.uint8).reshape(shape)


def file_memory(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Return an empty array mapped to a new file and shared with processes forked later.

    Raises:
        OSError: the disk is too full. Space is allocated now, because a full disk under a mapping kills the process.
    """
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        else:  # macOS
            file.truncate(math.prod(shape))
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)


def useful_workers(patchset: PatchSet, workers: int) -> int:
    """Return ``workers``, but at most one a shard and one a core."""
    return min(workers, len(patchset.manifest.shards), usable_cores())


def decode_into(images: Pixels, patchset: PatchSet, workers: int, on_patches: Callable[[int], None]) -> None:
    """Decode every patch of a verified set: patch i into row i of ``images``.

    ``images`` is from ``shared_memory`` or ``file_memory``, since processes write into it.
    ``on_patches`` is called with the number of patches that each step added.
    """
    shards = patchset.manifest.shards

    def decode(number: int) -> Iterator[None]:
        for row, patch in decode_shard(patchset, number):
            images[shards[number].first_index + row] = patch
            yield

    with contextlib.closing(Workers(useful_workers(patchset, workers), decode, on_patches)) as pool:
        for future in as_completed([pool.submit(number) for number in range(len(shards))]):
            future.result()


def decode_shard(
    patchset: PatchSet, number: int, wanted: npt.NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, Pixels]]:
    """Yield the row in its shard, and the pixels, of each patch of a shard of a verified set.

    ``wanted``, bool (patches of the shard), selects rows; None selects all.
    """
    manifest = patchset.manifest
    shard = manifest.shards[number]
    span = range(shard.first_index, shard.first_index + shard.n)
    path = patchset.shard_path(shard)
    seen = np.zeros(shard.n, np.bool_)
    with _tar_errors(path), path.open("rb") as stream:  # a plain file: never a URL or a command to WebDataset
        for sample in group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])):
            key = str(sample["__key__"])
            if not re.fullmatch(r"[0-9]{9,10}", key) or int(key) not in span:
                raise DistillError(
                    f"{path}: member {key}: the key is no index of a patch in this shard; get the set again"
                )
            row = int(key) - shard.first_index
            if seen[row]:
                raise DistillError(f"{path}: the key {key} stands twice; get the set again")
            seen[row] = True
            if wanted is None or wanted[row]:
                yield row, decode_sample(sample, manifest.encoding.format, manifest.size)
    if not seen.all():
        raise DistillError(f"{path}: holds {seen.sum()} patches, the manifest says {shard.n}; get the set again")


@contextlib.contextmanager
def _tar_errors(path: Path) -> Iterator[None]:
    """Raise the errors of reading a shard as a DistillError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise DistillError(f"{path}: cannot be read: {reason}; get the set again") from error
    except (tarfile.TarError, ValueError) as error:
        reason = str(next(iter(error.args), type(error).__name__)).split(" @ ")[0]  # WebDataset adds the open file
        raise DistillError(f"{path}: is no good tar: {reason}; get the set again") from error
    except MemoryError as error:
        raise DistillError(f"{path}: too little memory to decode it; use fewer data.workers") from error


def decode_sample(sample: dict[str, Any], image_format: str, size: int) -> Pixels:
    """Return the pixels of a sample: uint8 (size, size, 3)."""
    where = f"{sample['__url__']}: member {sample['__key__']}"
    fields = [name for name in sample if not name.startswith("__")]
    if fields != [image_format]:
        raise DistillError(
            f"{where}: is .{' and .'.join(fields)}, the manifest promises one .{image_format}; get the set again"
        )
    try:
        return decode_patch(sample[image_format], where, size, image_format)
    except PatchSetError as error:
        raise DistillError(f"{error}; get the set again") from error
