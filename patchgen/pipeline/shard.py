"""Shards as tasks: which there are, and which an earlier run already finished."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests.errors import PatchSetError
from manifests.foreign.image_files import StoredImage
from manifests.format import shard_table
from manifests.format.canonical_json import parse_json
from manifests.format.digest import file_digest
from manifests.format.schema import shard_name
from patchgen.pixels.pyramid import Pyramid
from patchgen.recipe import Recorded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every shard of a build shares. ``plan_id`` ties a finished shard to the build it belongs to.

    A job of packing has no pyramids.
    """

    recipe: Recorded
    pyramids: tuple[Pyramid, ...]
    size: int
    seed: int
    plan_id: str
    folder: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One shard to build: patches ``first_index`` to ``first_index + n - 1``."""

    number: int
    first_index: int
    n: int

    @property
    def tar_name(self) -> str:
        """File name of the shard."""
        return shard_name(self.number)

    @property
    def table_name(self) -> str:
        """File name of the shard's table."""
        return str(Path(self.tar_name).with_suffix(".parquet"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackTask(Task):
    """One shard to pack: its images, and the raw SHA-256 that each had when they were counted."""

    items: tuple[StoredImage, ...]
    digests: tuple[bytes, ...]


def finished_shard(folder: Path, plan_id: str, task: Task) -> dict[str, Any] | None:
    """The manifest entry of a shard that an earlier run of this build completed, else None.

    Both files must be there and no links, the table be as ``recorded_shard`` says, and the tar hash to what it says.
    """
    path = folder / task.tar_name
    if not path.is_file() or path.is_symlink():
        return None
    entry = recorded_shard(folder, plan_id, task)
    return entry if entry is not None and tar_entry(task, path).items() <= entry.items() else None


def recorded_shard(folder: Path, plan_id: str, task: Task) -> dict[str, Any] | None:
    """The manifest entry of a shard, as its table tells it, wherever the tar is; None without a whole table.

    It must belong to this build, be no link, and its pixel digests be what it said of them when it was written.
    """
    path = folder / task.table_name
    data = None if path.is_symlink() else shard_table.read_metadata(path)
    if data is None:
        return None
    try:
        value = parse_json(data, str(path))
        entry = value.get("shard") if isinstance(value, dict) else None
        if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
            return None
        ours = _entry(task, entry["bytes"], entry["sha256"])
        if value != shard_record(plan_id, ours, shard_table.read_pixel_digests(path, task.n)):
            return None
    except PatchSetError:
        return None  # a damaged table: the shard is built again
    return ours | {"parquet": table_entry(path)}


def shard_record(plan_id: str, entry: dict[str, Any], pixel_digests: bytes) -> dict[str, Any]:
    """What a table says of its shard: the build it belongs to, the tar, and the digest of its pixel digests."""
    return {"plan_id": plan_id, "shard": entry, "pixels": hashlib.sha256(pixel_digests).hexdigest()}


def tar_entry(task: Task, path: Path) -> dict[str, Any]:
    """A tar's manifest entry, hashed from the file: what counts is what a reader will read."""
    return _entry(task, path.stat().st_size, file_digest(path))


def _entry(task: Task, size: int, sha256: str) -> dict[str, Any]:
    return {
        "name": task.tar_name,
        "n": task.n,
        "first_index": task.first_index,
        "bytes": size,
        "sha256": sha256,
    }


def table_entry(path: Path) -> dict[str, Any]:
    """A table's part of its shard's manifest entry."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def tasks_for(n: int, shard_size: int) -> Iterator[Task]:
    """The shards of a set of ``n`` patches, each of ``shard_size`` but the last."""
    for number, first in enumerate(range(0, n, shard_size)):
        yield Task(number=number, first_index=first, n=min(shard_size, n - first))
