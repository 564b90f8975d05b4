"""Build one shard: a range of indices in, a canonical tar and its Parquet table out. Runs in a worker process."""

import hashlib
import itertools
from typing import Any, BinaryIO

import cv2
import numpy as np
import pyarrow.parquet as pq

from manifests.format import shard_table, tar
from manifests.format.digest import file_digest
from manifests.format.schema import Shard, patch_key
from manifests.support.files import atomic_file
from manifests.support.processes import keep_freed_memory
from patchgen.pipeline.patch_maker import PatchMaker
from patchgen.pipeline.shard import BuildContext, OnPatches, PackTask, ShardTask, make_shard, table_record, tar_record
from patchgen.recipe import Recipe
from patchgen.sources.packed_images import PackMaker, PackRecipe


def build_shard(context: BuildContext, task: ShardTask, on_patches: OnPatches) -> Shard:
    """Build one shard and return its manifest entry. The table is written last and marks the shard as complete."""
    maker: PatchMaker | PackMaker
    if isinstance(context.recipe, Recipe):
        indices = {"first_index": task.first_index, "n": task.n}
        maker = PatchMaker(context.recipe, context.pyramids, size=context.size, seed=context.seed, **indices)
    else:
        assert isinstance(context.recipe, PackRecipe) and isinstance(task, PackTask)  # noqa: S101
        maker = PackMaker(context.recipe, context.size, task.items, task.digests)
    path, table_path = context.folder / task.tar_name, context.folder / task.table_name
    with atomic_file(path) as file:
        extension = context.recipe.encoding_json()["format"]
        contract = _write_tar(file, extension, task.first_index, maker, on_patches)
    tar_part = tar_record(task, path.stat().st_size, file_digest(path))  # of the bytes that a reader will read
    record = table_record(context.plan_id, tar_part, b"".join(contract["pixels"]))
    with atomic_file(table_path) as file:
        pq.write_table(shard_table.table(contract, maker.columns(), record), file, compression="zstd")
    return make_shard(tar_part, table_path)


def _write_tar(
    file: BinaryIO, extension: str, first_index: int, maker: PatchMaker | PackMaker, on_patches: OnPatches
) -> dict[str, Any]:
    """Write every patch as a member of a canonical tar; return the contract columns of its table."""
    names = (f"{patch_key(index)}.{extension}" for index in itertools.count(first_index))
    sizes: list[int] = []
    digests: list[bytes] = []
    pixels: list[bytes] = []
    for patches in maker.encoded():
        encoded = [data for data, _ in patches]
        pixels += [digest for _, digest in patches]
        digests += [hashlib.sha256(data).digest() for data in encoded]
        sizes += [len(data) for data in encoded]
        parts = ((tar.header(next(names), len(data)), data, tar.padding(len(data))) for data in encoded)
        file.write(b"".join(itertools.chain.from_iterable(parts)))
        on_patches(len(patches))
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


def configure_process() -> None:
    """Set up a process that builds shards.

    OpenCV gets one thread: the processes share the cores, and a patch is too small to split. Freed memory is kept,
    which saves a seventh of the time at 224 px.
    """
    cv2.setNumThreads(0)
    keep_freed_memory(32 << 20)
