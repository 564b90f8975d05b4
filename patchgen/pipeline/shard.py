"""Describe the shards of a build, and find the shards that an earlier run already finished."""

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from manifests.errors import PatchSetError
from manifests.foreign.image_files import StoredImage
from manifests.format import shard_table
from manifests.format.canonical_json import canonical_json, parse_json
from manifests.format.digest import file_digest
from manifests.format.schema import File, Shard, shard_name
from manifests.support.files import is_plain
from patchgen.pixels.encode import RecordedRecipe
from patchgen.pixels.pyramid import Pyramid

OnPatches = Callable[[int], None]
"""A function that receives the number of patches written since its last call. It may raise to stop the build."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """The recipe, photos and other values that all shards of a build share."""

    recipe: RecordedRecipe
    pyramids: tuple[Pyramid, ...]  # of the photos; empty if images are packed
    size: int  # pixels of a patch's side
    seed: int
    plan_id: str  # digest of everything that a patch depends on; each finished table contains it
    folder: Path


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to build: the patches ``first_index`` to ``first_index + n - 1``."""

    number: int  # of the shard in the set, from 0
    first_index: int
    n: int

    @property
    def tar_name(self) -> str:
        return shard_name(self.number)

    @property
    def table_name(self) -> str:
        return str(Path(self.tar_name).with_suffix(".parquet"))

    def record(self, num_bytes: Any, sha256: Any) -> dict[str, Any]:
        """Return a shard's manifest entry without the table. The tar has ``num_bytes`` bytes and this ``sha256``."""
        entry = {"name": self.tar_name, "n": self.n, "first_index": self.first_index}
        return {**entry, "bytes": num_bytes, "sha256": sha256}


@dataclass(frozen=True, kw_only=True)
class PackTask(ShardTask):
    """A shard of packed images. ``digests`` are the raw SHA-256 of the images, computed when the pack began."""

    items: tuple[StoredImage, ...]
    digests: tuple[bytes, ...]


BuiltTasks = Generator[tuple[ShardTask, Shard], None, None]


def finished_shard(folder: Path, plan_id: str, task: ShardTask) -> Shard | None:
    """Return the manifest entry of a shard if the shard's tar and table in ``folder`` are intact, else None."""
    path = folder / task.tar_name
    shard = recorded_shard(folder, plan_id, task) if is_plain(path) else None
    is_same = shard is not None and (path.stat().st_size, file_digest(path)) == (shard.bytes, shard.sha256)
    return shard if is_same else None


def recorded_shard(folder: Path, plan_id: str, task: ShardTask) -> Shard | None:
    """Return the manifest entry of a shard, read from the shard's table. The tar is not read.

    Return None if ``folder`` has no intact table that a build with this ``plan_id`` wrote.
    """
    path = folder / task.table_name
    data = None if path.is_symlink() else shard_table.read_metadata(path)
    if data is None:
        return None
    try:
        found = parse_json(data, str(path))["shard"]
        record = task.record(found["bytes"], found["sha256"])
        if data != table_record(plan_id, record, shard_table.read_pixel_digests(path, task.n)):
            return None
        return make_shard(record, path)
    except (PatchSetError, ValidationError, LookupError, TypeError):
        return None  # the table is damaged, so the shard is built again


def table_record(plan_id: str, record: dict[str, Any], pixel_digests: bytes) -> bytes:
    """Return the metadata of a shard's table: ``plan_id``, the tar's ``record``, the SHA-256 of ``pixel_digests``."""
    pixels = hashlib.sha256(pixel_digests).hexdigest()
    return canonical_json({"plan_id": plan_id, "shard": record, "pixels": pixels})


def make_shard(record: dict[str, Any], table: Path) -> Shard:
    """Return a shard's manifest entry. ``record`` is from ``ShardTask.record``; ``table`` is the table's path."""
    parquet = File(name=table.name, bytes=table.stat().st_size, sha256=file_digest(table))
    return Shard(**record, parquet=parquet)
