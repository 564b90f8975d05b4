"""Shards of a build: what there is to build, and which shards an earlier run already finished."""

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
from manifests.format.schema import ParquetFile, Shard, shard_name
from manifests.support.files import is_plain
from patchgen.pixels.encode import RecordedRecipe
from patchgen.pixels.pyramid import Pyramid

OnPatches = Callable[[int], None]
"""Called with the number of patches made since the last call; may raise to stop the build."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """What all shards of a build share. ``plan_id`` ties a finished shard to its build. A pack has no pyramids."""

    recipe: RecordedRecipe
    pyramids: tuple[Pyramid, ...]
    size: int
    seed: int
    plan_id: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to build: patches ``first_index`` to ``first_index + n - 1``."""

    number: int
    first_index: int
    n: int

    @property
    def tar_name(self) -> str:
        return shard_name(self.number)

    @property
    def table_name(self) -> str:
        return str(Path(self.tar_name).with_suffix(".parquet"))


@dataclass(frozen=True, kw_only=True)
class PackTask(ShardTask):
    """A shard to pack: its images, and the raw SHA-256 that each had when they were counted."""

    items: tuple[StoredImage, ...]
    digests: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class BuiltShard:
    """A shard's manifest entry, and the bytes of its table if that is not in the build's folder already."""

    shard: Shard
    table: bytes | None = None


BuiltTasks = Generator[tuple[ShardTask, Shard], None, None]


def finished_shard(folder: Path, plan_id: str, task: ShardTask) -> Shard | None:
    """Return the entry of a shard that an earlier run of this build completed in ``folder``, else None.

    Its table must be as for ``recorded_shard``, and its tar a regular file with the digest recorded there.
    """
    path = folder / task.tar_name
    shard = recorded_shard(folder, plan_id, task) if is_plain(path) else None
    is_same = shard is not None and (path.stat().st_size, file_digest(path)) == (shard.bytes, shard.sha256)
    return shard if is_same else None


def recorded_shard(folder: Path, plan_id: str, task: ShardTask) -> Shard | None:
    """Return the entry of a shard from its table in ``folder``, wherever its tar is; None without an intact table.

    The table must be of this build, no link, and its pixel digests those it had when it was written.
    """
    path = folder / task.table_name
    data = None if path.is_symlink() else shard_table.read_metadata(path)
    if data is None:
        return None
    try:
        found = parse_json(data, str(path))["shard"]
        record = tar_record(task, found["bytes"], found["sha256"])
        if data != table_record(plan_id, record, shard_table.read_pixel_digests(path, task.n)):
            return None
        return make_shard(record, path)
    except (PatchSetError, ValidationError, LookupError, TypeError):
        return None  # a damaged table: the shard is built again


def tar_record(task: ShardTask, num_bytes: Any, sha256: Any) -> dict[str, Any]:
    """Return the part of a shard's entry that describes its tar."""
    entry = {"name": task.tar_name, "n": task.n, "first_index": task.first_index}
    return {**entry, "bytes": num_bytes, "sha256": sha256}


def table_record(plan_id: str, record: dict[str, Any], pixel_digests: bytes) -> bytes:
    """Return what a table records of its shard: the build, the tar, and the digest of the pixel digests."""
    pixels = hashlib.sha256(pixel_digests).hexdigest()
    return canonical_json({"plan_id": plan_id, "shard": record, "pixels": pixels})


def make_shard(record: dict[str, Any], table: Path) -> Shard:
    """Return a shard's entry from its ``tar_record`` and its table."""
    parquet = ParquetFile(name=table.name, bytes=table.stat().st_size, sha256=file_digest(table))
    return Shard(**record, parquet=parquet)
