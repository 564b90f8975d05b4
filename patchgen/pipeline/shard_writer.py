"""One shard: a range of indices in, a canonical tar and its Parquet table out. Runs in a worker process."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import cv2
import numpy as np
import pyarrow.parquet as pq

from manifests.format import shard_table, tar
from manifests.format.canonical_json import canonical_json
from manifests.format.digest import pixel_digest
from manifests.format.schema import patch_key
from manifests.support.files import atomic_file
from manifests.support.processes import keep_freed_memory
from patchgen.pipeline.patch_maker import PatchMaker
from patchgen.pipeline.shard import Job, PackTask, Task, shard_record, table_entry, tar_entry
from patchgen.pixels.encode import make_encoder
from patchgen.recipe import Recipe
from patchgen.sources.packed_images import PackMaker, PackRecipe

Encoded = tuple[bytes, bytes]
"""A patch's encoded bytes, and the raw digest of its pixels."""


def build_shard(job: Job, task: Task, on_patches: Callable[[int], None]) -> dict[str, Any]:
    """Build one shard and return its manifest entry; the table is written last and marks it complete.

    ``on_patches`` hears how many patches were made since its last call, and may raise to stop the build.
    """
    maker, extension = _maker(job, task), job.recipe.encoding_json()["format"]
    path = job.folder / task.tar_name
    with atomic_file(path) as file:
        contract = _write_tar(file, extension, task.first_index, _heard(maker.encoded(), on_patches))
    shard = tar_entry(task, path)
    record = canonical_json(shard_record(job.plan_id, shard, b"".join(contract["pixels"])))
    table_path = job.folder / task.table_name
    with atomic_file(table_path) as file:
        pq.write_table(shard_table.table(contract, maker.columns(), record), file, compression="zstd")
    return shard | {"parquet": table_entry(table_path)}


class Maker(Protocol):
    """What makes the patches of a shard."""

    def encoded(self) -> Iterator[list[Encoded]]:
        """Encoded bytes and raw pixel digest of each patch, in order, some at a time."""

    def columns(self) -> dict[str, Any]:
        """Every applied parameter, a sequence of n values a column; to be asked when all patches are made."""


class _Drawn:
    """Patches that a recipe draws from photos."""

    def __init__(self, recipe: Recipe, job: Job, task: Task) -> None:
        place = {"first_index": task.first_index, "n": task.n}
        self._maker = PatchMaker(recipe, job.pyramids, size=job.size, seed=job.seed, **place)
        self._encode = make_encoder(recipe.encoding)

    def encoded(self) -> Iterator[list[Encoded]]:
        for patches in self._maker.chunks():
            yield [(self._encode(patch), pixel_digest(patch)) for patch in patches]

    def columns(self) -> dict[str, Any]:
        return self._maker.columns()


def _maker(job: Job, task: Task) -> Maker:
    if isinstance(job.recipe, Recipe):
        return _Drawn(job.recipe, job, task)
    if not isinstance(job.recipe, PackRecipe) or not isinstance(task, PackTask):
        raise TypeError(f"shard {task.number}: is neither drawn from photos nor packed from images")
    return PackMaker(job.recipe, job.size, zip(task.items, task.digests, strict=True))


def _heard(chunks: Iterator[list[Encoded]], on_patches: Callable[[int], None]) -> Iterator[list[Encoded]]:
    for patches in chunks:
        yield patches
        on_patches(len(patches))


def _write_tar(file: BinaryIO, extension: str, first_index: int, chunks: Iterator[list[Encoded]]) -> dict[str, Any]:
    """Write every patch as a member of a canonical tar; returns the contract columns of its table."""
    names = _member_names(first_index, extension)
    sizes: list[int] = []
    digests: list[bytes] = []
    pixels: list[bytes] = []
    for patches in chunks:
        encoded = [data for data, _ in patches]
        pixels += [digest for _, digest in patches]
        digests += [hashlib.sha256(data).digest() for data in encoded]
        sizes += [len(data) for data in encoded]
        parts = ((tar.header(next(names), len(data)), data, tar.padding(len(data))) for data in encoded)
        file.write(b"".join(itertools.chain.from_iterable(parts)))
    file.write(tar.END)
    lengths = np.array(sizes, dtype=np.int64)
    ends = np.cumsum(tar.BLOCK + (lengths + tar.BLOCK - 1) // tar.BLOCK * tar.BLOCK)
    indices = range(first_index, first_index + len(sizes))
    return {
        "key": [patch_key(index) for index in indices],
        "index": np.array(indices, dtype=np.int64),
        "offset": np.concatenate([[0], ends[:-1]]) + tar.BLOCK,
        "size": lengths,
        "sha256": digests,
        "pixels": pixels,
    }


def _member_names(first_index: int, extension: str) -> Iterator[str]:
    """Names of tar members from ``first_index`` on."""
    return (f"{patch_key(index)}.{extension}" for index in itertools.count(first_index))


def configure_process() -> None:
    """Set up a process that builds shards.

    OpenCV gets one thread: the processes share the cores, and a patch is too small to split. Freed memory is kept: it
    is a seventh of the time at 224 px.
    """
    cv2.setNumThreads(0)
    keep_freed_memory(32 << 20)
