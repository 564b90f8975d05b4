"""Build one shard: make patches with consecutive indices, and write a canonical tar and a Parquet table.

The geometry and the color jitter of all patches are drawn at once, before the first patch is made.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import cv2
import numpy as np
import pyarrow.parquet as pq

from manifests.format import shard_table, tar
from manifests.format.digest import file_digest, pixel_digest
from manifests.format.schema import Shard, patch_key
from manifests.support.files import atomic_file
from manifests.support.processes import keep_freed_memory
from patchgen.pipeline.shard import BuildContext, OnPatches, PackTask, ShardTask, make_shard, table_record
from patchgen.pixels.albumentations_steps import NamedStep
from patchgen.pixels.color_jitter import ColorJitterConfig, Jitter
from patchgen.pixels.encode import make_encoder
from patchgen.pixels.exact_math import Pixels
from patchgen.pixels.geometry import place
from patchgen.pixels.pyramid import Pyramid
from patchgen.pixels.randomness import FIRST_AUGMENT_STREAM, GEOMETRY_STREAM, uniforms
from patchgen.pixels.warp import Warp
from patchgen.recipe import Recipe
from patchgen.sources.packed_images import PackMaker, PackRecipe

_CHUNK_BYTES = 3 << 18  # bytes of the pixels that pass through the steps together; they fit into a core's cache


class PatchMaker:
    """Makes the patches ``first_index`` to ``first_index + n - 1`` of a set, from photos with a recipe."""

    def __init__(
        self, recipe: Recipe, pyramids: Sequence[Pyramid], *, size: int, seed: int, first_index: int, n: int
    ) -> None:
        draws = uniforms(seed, GEOMETRY_STREAM, first_index, n)
        self._places = place(recipe.geometry, size, pyramids, draws)
        self._warp = Warp(recipe.geometry, size, pyramids, self._places)
        self._n = n
        self._chunk = max(1, _CHUNK_BYTES // (size * size * 3))
        self._encode = make_encoder(recipe.encoding)
        self._steps: list[Jitter | NamedStep] = []
        for stream, config in enumerate(recipe.augment, FIRST_AUGMENT_STREAM):
            draws = uniforms(seed, stream, first_index, n)
            if isinstance(config, ColorJitterConfig):
                self._steps.append(Jitter(config, draws))
            else:
                self._steps.append(NamedStep(config, draws, seed=seed, stream=stream, first_index=first_index))

    def chunks(self) -> Iterator[list[Pixels]]:
        """Yield lists of consecutive patches, in order. A patch is RGB uint8 of shape (size, size, 3)."""
        for start in range(0, self._n, self._chunk):
            patches = self.warped(start)
            self.augment(patches, start)
            yield patches

    def encoded(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield lists of consecutive patches, in order. A patch is a pair: encoded bytes, pixel digest (32 bytes)."""
        for patches in self.chunks():
            yield [(self._encode(patch), pixel_digest(patch)) for patch in patches]

    def warped(self, start: int) -> list[Pixels]:
        """Return a chunk of patches before augmentation. It begins with patch ``first_index + start`` of the set."""
        return [self._warp[i] for i in range(start, min(start + self._chunk, self._n))]

    def augment(self, patches: list[Pixels], start: int) -> None:
        """Augment ``patches`` in place. ``patches[0]`` is patch ``first_index + start`` of the set."""
        for step in self._steps:
            step(patches, start)

    def columns(self) -> dict[str, Any]:
        """Return a table column (n,) for each parameter. Values are masked for patches that a step skipped."""
        columns: dict[str, Any] = self._places.columns()
        for number, step in enumerate(self._steps):
            skipped = ~step.columns["applied"]
            for name, values in step.columns.items():
                hidden = values if name == "applied" else np.ma.masked_array(values, mask=skipped)
                columns[f"augment{number}_{step.name}_{name}"] = hidden
        return columns


def make_maker(context: BuildContext, task: ShardTask) -> PatchMaker | PackMaker:
    """Return the object that makes the patches of a shard, from photos or from packed images."""
    if isinstance(context.recipe, Recipe):
        indices = {"first_index": task.first_index, "n": task.n}
        return PatchMaker(context.recipe, context.pyramids, size=context.size, seed=context.seed, **indices)
    assert isinstance(context.recipe, PackRecipe) and isinstance(task, PackTask)  # noqa: S101
    return PackMaker(context.recipe, context.size, task.items, task.digests)


def build_shard(context: BuildContext, task: ShardTask, on_patches: OnPatches) -> Shard:
    """Build one shard and return its manifest entry. The table is written last; it shows that the tar is complete."""
    maker = make_maker(context, task)
    path, table_path = context.folder / task.tar_name, context.folder / task.table_name
    with atomic_file(path) as file:
        contract = _write_tar(file, context.recipe.encoding_json()["format"], task.first_index, maker, on_patches)
    tar_part = task.record(path.stat().st_size, file_digest(path))  # of the bytes on the disk
    record = table_record(context.plan_id, tar_part, b"".join(contract["pixels"]))
    with atomic_file(table_path) as file:
        pq.write_table(shard_table.table(contract, maker.columns(), record), file, compression="zstd")
    return make_shard(tar_part, table_path)


def _write_tar(
    file: BinaryIO, extension: str, first_index: int, maker: PatchMaker | PackMaker, on_patches: OnPatches
) -> dict[str, Any]:
    """Write every patch as a member of a canonical tar. Return the required columns of the shard's table."""
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
    """Set up a process that builds shards: OpenCV uses one thread, and the process keeps freed memory.

    The processes use all cores, and a patch is too small for threads. For 224 px, kept memory saves 14 % of the time.
    """
    cv2.setNumThreads(0)
    keep_freed_memory(32 << 20)
