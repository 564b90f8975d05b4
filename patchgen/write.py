"""One shard: a range of indices in, a canonical tar and its Parquet table out. Runs in a worker process."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from manifests import rows, tar
from manifests.canonical import canonical_json
from manifests.digest import bytes_digest, pixel_digest
from manifests.files import atomic_file
from manifests.schema import patch_key
from patchgen.encode import make_encoder
from patchgen.geometry import Warp, place
from patchgen.randomness import FIRST_AUGMENT_STREAM, GEOMETRY_STREAM, uniforms
from patchgen.shard import Job, Task, shard_record, table_entry, tar_entry
from patchgen.transforms import ColorJitter

TICK = 256
"""Patches between two calls of ``on_patches``."""

Patch = npt.NDArray[np.uint8]


class PatchMaker:
    """Makes the patches of one range of indices, with all their parameters drawn at once."""

    def __init__(self, job: Job, first_index: int, n: int) -> None:
        draws = uniforms(job.seed, GEOMETRY_STREAM, first_index, n)
        self._places = place(job.recipe.geometry, job.size, job.pyramid, draws)
        self._warp = Warp(job.recipe.geometry, job.size, job.pyramid)
        self._steps = []
        for number, config in enumerate(job.recipe.augment):
            draws = uniforms(job.seed, FIRST_AUGMENT_STREAM + number, first_index, n)
            transform = ColorJitter(config)
            self._steps.append((transform, transform.sample(draws)))

    def __call__(self, i: int) -> Patch:
        """Patch ``first_index + i``: RGB uint8 of shape (size, size, 3)."""
        patch = self._warp(self._places, i)
        for transform, columns in self._steps:
            if columns["applied"][i]:
                values = {name: column[i] for name, column in columns.items() if name != "applied"}
                patch = transform.apply(patch, **values)
        return patch

    def columns(self) -> dict[str, Any]:
        """Every applied parameter, one array of n values a column; null where a transform was left out."""
        columns: dict[str, Any] = dict(self._places.columns())
        for number, (transform, sampled) in enumerate(self._steps):
            prefix = f"augment{number}_{type(transform).__name__}"
            columns[f"{prefix}_applied"] = sampled["applied"]
            skipped = ~sampled["applied"]
            for name, values in sampled.items():
                if name != "applied":
                    columns[f"{prefix}_{name}"] = np.ma.masked_array(values, mask=skipped)
        return columns


def build_shard(job: Job, task: Task, on_patches: Callable[[int], None]) -> dict[str, Any]:
    """Build one shard and return its manifest entry; the table is written last and marks it complete.

    ``on_patches`` hears how many patches were made since its last call, and may raise to stop the build.
    """
    maker = PatchMaker(job, task.first_index, task.n)
    encode = make_encoder(job.recipe.encoding)
    extension = job.recipe.encoding.format
    contract: dict[str, list[Any]] = {field.name: [] for field in rows.CONTRACT}
    path = job.folder / task.tar_name
    with atomic_file(path) as file:
        for i in range(task.n):
            patch = maker(i)
            data = encode(patch)
            key = patch_key(task.first_index + i)
            file.write(tar.header(f"{key}.{extension}", len(data)))
            values = (key, task.first_index + i, file.tell(), len(data))
            for column, value in zip(
                contract.values(), (*values, bytes_digest(data), pixel_digest(patch)), strict=True
            ):
                column.append(value)
            file.write(data)
            file.write(tar.padding(len(data)))
            if (i + 1) % TICK == 0:
                on_patches(TICK)
        on_patches(task.n % TICK)
        file.write(tar.END)
    shard = tar_entry(task, path)
    record = canonical_json(shard_record(job.plan_id, shard, b"".join(contract["pixels"])))
    table_path = job.folder / task.table_name
    with atomic_file(table_path) as file:
        pq.write_table(rows.table(contract, maker.columns(), record), file, compression="zstd")
    return shard | {"parquet": table_entry(table_path)}


def configure_opencv() -> None:
    """One thread a process: the processes share the cores, and a patch is too small to split."""
    cv2.setNumThreads(0)
