"""One shard: a range of indices in, a canonical tar and its Parquet table out. Runs in a worker process."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import cv2
import numpy as np
import pyarrow.parquet as pq

from manifests import rows, tar
from manifests.canonical import canonical_json
from manifests.digest import pixel_digest
from manifests.files import atomic_file
from manifests.processes import keep_freed_memory
from manifests.schema import patch_key
from patchgen.encode import make_encoder
from patchgen.patches import Patch, PatchMaker
from patchgen.shard import Job, Task, shard_record, table_entry, tar_entry


def build_shard(job: Job, task: Task, on_patches: Callable[[int], None]) -> dict[str, Any]:
    """Build one shard and return its manifest entry; the table is written last and marks it complete.

    ``on_patches`` hears how many patches were made since its last call, and may raise to stop the build.
    """
    maker = PatchMaker(job.recipe, job.pyramids, size=job.size, seed=job.seed, first_index=task.first_index, n=task.n)
    path = job.folder / task.tar_name
    with atomic_file(path) as file:
        contract = _write_tar(file, job, task.first_index, _heard(maker.chunks(), on_patches))
    shard = tar_entry(task, path)
    record = canonical_json(shard_record(job.plan_id, shard, b"".join(contract["pixels"])))
    table_path = job.folder / task.table_name
    with atomic_file(table_path) as file:
        pq.write_table(rows.table(contract, maker.columns(), record), file, compression="zstd")
    return shard | {"parquet": table_entry(table_path)}


def _heard(chunks: Iterator[list[Patch]], on_patches: Callable[[int], None]) -> Iterator[list[Patch]]:
    for patches in chunks:
        yield patches
        on_patches(len(patches))


def _write_tar(file: BinaryIO, job: Job, first_index: int, chunks: Iterator[list[Patch]]) -> dict[str, Any]:
    """Write every patch as a member of a canonical tar; returns the contract columns of its table."""
    encode = make_encoder(job.recipe.encoding)
    names = _member_names(first_index, job.recipe.encoding.format)
    sizes: list[int] = []
    digests: list[bytes] = []
    pixels: list[bytes] = []
    for patches in chunks:
        encoded = [encode(patch) for patch in patches]
        pixels += [pixel_digest(patch) for patch in patches]
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
