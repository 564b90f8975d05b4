"""Shards as tasks: which there are, and which an earlier run already finished."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests import rows
from manifests.canonical import parse_json
from manifests.digest import file_digest
from manifests.errors import PatchSetError
from manifests.schema import shard_name
from patchgen.pyramid import Pyramid
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


def finished_shard(folder: Path, plan_id: str, task: Task) -> dict[str, Any] | None:
    """The manifest entry of a shard that an earlier run of this build completed, else None.

    Both files must be there and no links, the table must belong to this build, the tar must hash to what the
    table says, and the table's pixel digests to what it said of them when it was written.
    """
    path, table_path = folder / task.tar_name, folder / task.table_name
    if not path.is_file() or path.is_symlink() or table_path.is_symlink():
        return None
    data = rows.read_metadata(table_path)
    if data is None:
        return None
    try:
        value = parse_json(data, str(table_path))
        if value != shard_record(plan_id, tar_entry(task, path), rows.read_pixel_digests(table_path, task.n)):
            return None
    except PatchSetError:
        return None  # a damaged table: the shard is built again
    return value["shard"] | {"parquet": table_entry(table_path)}


def shard_record(plan_id: str, entry: dict[str, Any], pixel_digests: bytes) -> dict[str, Any]:
    """What a table says of its shard: the build it belongs to, the tar, and the digest of its pixel digests."""
    return {"plan_id": plan_id, "shard": entry, "pixels": hashlib.sha256(pixel_digests).hexdigest()}


def tar_entry(task: Task, path: Path) -> dict[str, Any]:
    """A tar's manifest entry, hashed from the file: what counts is what a reader will read."""
    return {
        "name": task.tar_name,
        "n": task.n,
        "first_index": task.first_index,
        "bytes": path.stat().st_size,
        "sha256": file_digest(path),
    }


def table_entry(path: Path) -> dict[str, Any]:
    """A table's part of its shard's manifest entry."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def tasks_for(n: int, shard_size: int) -> Iterator[Task]:
    """The shards of a set of ``n`` patches, each of ``shard_size`` but the last."""
    for number, first in enumerate(range(0, n, shard_size)):
        yield Task(number=number, first_index=first, n=min(shard_size, n - first))
