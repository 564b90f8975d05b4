"""Shards as tasks: which there are, and which an earlier run already finished."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests import rows
from manifests.digest import DIGEST_BYTES, file_digest
from manifests.errors import PatchSetError
from manifests.schema import shard_name
from patchgen.recipe import Recipe
from patchgen.source import Pyramid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every shard of a build shares. ``plan_id`` ties a finished shard to the build it belongs to."""

    recipe: Recipe
    pyramid: Pyramid
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

    Both files must be there, the table must belong to this build, and the tar must hash to what it says.
    """
    path, table_path = folder / task.tar_name, folder / task.table_name
    record = rows.read_metadata(table_path)
    if record is None or not path.is_file():
        return None
    try:
        value = json.loads(record)
        if value["plan_id"] != plan_id or path.stat().st_size != value["shard"]["bytes"]:
            return None
        if value["shard"] != tar_entry(task, path):
            return None
        if len(rows.read_pixel_digests(table_path)) != DIGEST_BYTES * task.n:
            return None
    except (ValueError, KeyError, TypeError, PatchSetError):
        return None  # a damaged table: the shard is built again
    return value["shard"] | {"parquet": table_entry(table_path)}


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
