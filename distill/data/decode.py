"""Decode verified shards into one uint8 array, with several processes that write into the array."""

import contextlib
import math
import mmap
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
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
    """Return the shape of a decoded patch set: (n, size, size, 3)."""
    manifest = patchset.manifest
    return manifest.n, manifest.size, manifest.size, 3


def shared_memory(shape: tuple[int, ...]) -> Pixels:
    """Return an empty array in memory that this process shares with processes forked later."""
    return np.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=np.uint8).reshape(shape)


def file_memory(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create a file, and return an empty array that is mapped to the file and shared with processes forked later."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):  # fails if the disk is too full; a write to the mapping would kill us
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        else:  # macOS
            file.truncate(math.prod(shape))
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)


def useful_workers(patchset: PatchSet, workers: int) -> int:
    """Return ``workers``, limited to one process for each shard and one for each core."""
    return min(workers, len(patchset.manifest.shards), usable_cores())


def decode_into(images: Pixels, patchset: PatchSet, workers: int, on_patches: Callable[[int], None]) -> None:
    """Decode every patch of a verified patch set. Patch i is written to row i of ``images``.

    ``images`` must be from ``shared_memory`` or ``file_memory``, because processes write into it.
    ``on_patches`` is called after each shard, with the number of patches in the shard.
    """
    shards = patchset.manifest.shards

    def decode(number: int) -> None:
        for row, patch in decode_shard(patchset, number):
            images[shards[number].first_index + row] = patch

    with contextlib.closing(Workers(useful_workers(patchset, workers), decode)) as pool:
        sizes: dict[Future[None], int] = {pool.submit(number): shard.n for number, shard in enumerate(shards)}
        for future in as_completed(sizes):
            future.result()
            on_patches(sizes[future])


def decode_shard(
    patchset: PatchSet, number: int, wanted: npt.NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, Pixels]]:
    """Decode a shard of a verified patch set, and yield the row in the shard and the pixels of each patch.

    ``wanted``, bool (patches of the shard), selects rows. None selects all rows.
    """
    manifest = patchset.manifest
    shard = manifest.shards[number]
    path = patchset.shard_path(shard)
    seen = np.zeros(shard.n, np.bool_)
    with _tar_errors(path), path.open("rb") as stream:  # a plain file: never a URL or a command to WebDataset
        for sample in group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])):
            key = str(sample["__key__"])
            row = int(key) - shard.first_index if re.fullmatch(r"[0-9]{9,10}", key) else -1
            if not 0 <= row < shard.n or seen[row]:
                problem = "appears twice" if 0 <= row < shard.n else "is not the index of a patch in this shard"
                raise DistillError(f"{path}: the key of member {key} {problem}; {_DAMAGED}")
            seen[row] = True
            if wanted is None or wanted[row]:
                yield row, decode_sample(sample, manifest.encoding.format, manifest.size)
    if not seen.all():
        raise DistillError(f"{path}: has {seen.sum()} patches, but the manifest declares {shard.n}; {_DAMAGED}")


_DAMAGED = "the patch set is corrupt; download it again"


@contextlib.contextmanager
def _tar_errors(path: Path) -> Iterator[None]:
    """Convert an error that occurs while reading a shard to a DistillError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise DistillError(f"{path}: cannot be read: {reason}; check the disk, or download the set again") from error
    except (tarfile.TarError, ValueError) as error:
        reason = str(next(iter(error.args), type(error).__name__)).split(" @ ")[0]  # WebDataset adds the open file
        raise DistillError(f"{path}: is not a valid tar file: {reason}; {_DAMAGED}") from error
    except MemoryError as error:
        raise DistillError(f"{path}: decoding needs more memory than is free; set fewer data.workers") from error


def decode_sample(sample: dict[str, Any], image_format: str, size: int) -> Pixels:
    """Return the pixels of a sample of WebDataset: uint8 (size, size, 3)."""
    where = f"{sample['__url__']}: member {sample['__key__']}"
    fields = [name for name in sample if not name.startswith("__")]
    if fields != [image_format]:
        found = f"has the files .{' and .'.join(fields)}, but the manifest declares one .{image_format}"
        raise DistillError(f"{where}: {found}; {_DAMAGED}")
    try:
        return decode_patch(sample[image_format], where, size, image_format)
    except PatchSetError as error:
        raise DistillError(f"{error}; {_DAMAGED}") from error
