"""Where the tars of a build go. Its tables come into its folder in any case: the manifest is made of them."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from manifests.support.console import progress_bar
from manifests.support.processes import usable_cores
from patchgen.errors import PatchgenError
from patchgen.pipeline.output_dir import PLAN_NAME
from patchgen.pipeline.process_pool import Entries, OnCount, OnShard
from patchgen.pipeline.shard import Job, Task, finished_shard

MAX_THREADS = 8
"""That hash shards; more than a disk gives bytes for are of no use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """A shard that was built: its manifest entry, and its table's bytes unless that lies in the folder already."""

    entry: dict[str, Any]
    table: bytes | None = None


Builder = Callable[[Job, Task, Callable[[int], None]], Made]
"""As ``write.build_shard``; may be pickled, and be called on another machine."""


class Shelf(Protocol):
    """Where tars go: the build's folder, or a store."""

    def finished(self, job: Job, tasks: Sequence[Task]) -> Entries:
        """The shards of this build that are there and whole."""

    def begin(self) -> Builder:
        """Make ready for shards; what builds one and puts its tar there."""

    def keep(self, job: Job, task: Task, made: Made) -> None:
        """See to it, where the build runs, that a shard is among the finished ones from now on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crew:
    """Who builds shards, as ``pool.build_shards`` does, and where their tars go."""

    build: Callable[[Job, list[Task], OnCount, OnShard], Entries]
    shelf: Shelf


class FolderShelf:
    """The build's own folder, which everybody who builds sees."""

    def finished(self, job: Job, tasks: Sequence[Task]) -> Entries:
        """See ``Shelf``."""
        entries: Entries = {}
        pool = ThreadPoolExecutor(min(usable_cores(), MAX_THREADS))  # hashing releases the interpreter lock
        try:
            found = pool.map(partial(finished_shard, job.folder, job.plan_id), tasks)
            with progress_bar("checking shards", len(tasks)) as update:
                for done, (task, entry) in enumerate(zip(tasks, found, strict=True), 1):
                    if entry is not None:
                        entries[task.number] = entry
                    update(done)
        finally:
            pool.shutdown(cancel_futures=True)
        return entries

    def begin(self) -> Builder:
        """See ``Shelf``."""
        return _build_in_folder

    def keep(self, job: Job, task: Task, made: Made) -> None:
        """See ``Shelf``: both files are there."""


def _build_in_folder(job: Job, task: Task, on_patches: Callable[[int], None]) -> Made:
    from patchgen.pipeline.shard_writer import build_shard  # noqa: PLC0415 - see ``pool``

    if not (job.folder / PLAN_NAME).exists():
        raise PatchgenError(f"does not see {job.folder}; give an --out that every worker sees")
    return Made(entry=build_shard(job, task, on_patches))
