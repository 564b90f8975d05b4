"""One shard: a range of indices in, a canonical tar and its Parquet table out. Runs in a worker process."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import cv2
import pyarrow.parquet as pq

from manifests import rows, tar
from manifests.canonical import canonical_json
from manifests.digest import pixel_digest
from manifests.files import atomic_file
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


def _write_tar(file: BinaryIO, job: Job, first_index: int, chunks: Iterator[list[Patch]]) -> dict[str, list[Any]]:
    """Write every patch as a member of a canonical tar; returns the contract columns of its table."""
    encode = make_encoder(job.recipe.encoding)
    extension = job.recipe.encoding.format
    contract: dict[str, list[Any]] = {field.name: [] for field in rows.CONTRACT}
    keys, indices, offsets, sizes, digests, pixels = contract.values()
    index, position = first_index, 0
    for patches in chunks:
        encoded = [encode(patch) for patch in patches]
        pixels += [pixel_digest(patch) for patch in patches]
        digests += [hashlib.sha256(data).digest() for data in encoded]
        for data in encoded:
            key, length = patch_key(index), len(data)
            header, padding = tar.header(f"{key}.{extension}", length), tar.padding(length)
            file.write(header + data + padding)
            keys.append(key)
            indices.append(index)
            offsets.append(position + len(header))
            sizes.append(length)
            index += 1
            position += len(header) + length + len(padding)
    file.write(tar.END)
    return contract


def configure_opencv() -> None:
    """One thread a process: the processes share the cores, and a patch is too small to split."""
    cv2.setNumThreads(0)
