"""Several processes that build shards. The order in which they finish does not matter.

``shard_writer`` imports OpenCV and PyArrow. A fork server loads them once for all workers while the parent goes
on, so nothing here imports it at the top.
"""

import ctypes
import dataclasses
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from manifests.support.console import counting
from manifests.support.files import part_prefix
from manifests.support.processes import (
    die_with_parent,
    end_pool,
    explaining_start,
    handling,
    start_server,
    starting_processes,
)
from patchgen.errors import PatchgenError
from patchgen.pipeline.shard import Job, Task
from patchgen.pixels.pyramid import StoredPyramid, map_pyramids, store_pyramids

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 600.0
"""Longest that all workers may make no patch and finish no shard: a disk may keep them for ever."""

Entries = dict[int, dict[str, Any]]
"""Shard number → its entry in the manifest."""

OnCount = Callable[[int], None]
OnShard = Callable[[int, dict[str, Any]], None]
_Futures = dict[Future[dict[str, Any]], Task]


class StoppedError(Exception):
    """Raised inside a worker when the build was asked to stop."""


def build_shards(workers: int, job: Job, tasks: list[Task], on_count: OnCount, on_shard: OnShard) -> Entries:
    """Build every task's shard in up to ``workers`` processes; ``on_count`` hears the patches made so far.

    ``on_shard`` hears the number and the entry of each finished shard, and may raise to stop the build.

    Raises:
        OSError: a file could not be written.
        PatchSetError: worker processes cannot start.
        PatchgenError: none of them gets on.
        BrokenProcessPool: a worker was killed.
    """
    if min(workers, len(tasks)) > 1:
        return _in_processes(job, tasks, workers, on_count, on_shard)
    return _in_this_process(job, tasks, on_count, on_shard)


def _in_this_process(job: Job, tasks: list[Task], on_count: OnCount, on_shard: OnShard) -> Entries:
    from patchgen.pipeline.shard_writer import build_shard, configure_process  # noqa: PLC0415 - see the module docstring

    configure_process()
    add = counting(on_count)
    entries: Entries = {}
    for task in tasks:
        entries[task.number] = build_shard(job, task, add)
        on_shard(task.number, entries[task.number])
    return entries


def _in_processes(job: Job, tasks: list[Task], workers: int, on_count: OnCount, on_shard: OnShard) -> Entries:
    context = start_server("patchgen.pipeline.shard_writer")
    with explaining_start():
        counter, stop = context.Value("q", 0), context.RawValue("b", 0)  # read without a lock
    spill = job.folder / f"{part_prefix()}pyramids"
    try:
        stored = store_pyramids(spill, job.pyramids)
        shared = _Shared(job=dataclasses.replace(job, pyramids=()), spill=spill, stored=stored)
        return _run_pool(context, (shared, counter, stop), tasks, workers, on_count, on_shard)
    finally:
        spill.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shared:
    """A job on its way to the workers: its pyramids lie in a file that all of them map."""

    job: Job
    spill: Path
    stored: list[StoredPyramid]


def _run_pool(
    context: ForkServerContext,
    initargs: tuple[_Shared, "Synchronized[int]", ctypes.c_byte],
    tasks: list[Task],
    workers: int,
    on_count: OnCount,
    on_shard: OnShard,
) -> Entries:
    shared, counter, stop = initargs
    count = min(workers, len(tasks))
    with explaining_start():
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=initargs)
    try:
        with explaining_start(), starting_processes():
            futures: _Futures = {pool.submit(_work, task): task for task in tasks}
        return _collect(futures, counter, shared.job.folder, on_count, on_shard)
    finally:
        with handling(signal.SIG_IGN):  # a second Ctrl-C must not leave the workers without their stop
            stop.value = 1  # they look at it every few patches, so that an error or Ctrl-C ends in milliseconds
            end_pool(pool)


def _collect(
    futures: _Futures, counter: "Synchronized[int]", folder: Path, on_count: OnCount, on_shard: OnShard
) -> Entries:
    entries: Entries = {}
    pending, last, silent = set(futures), (-1, -1), 0
    while pending:
        finished, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        count = counter.get_obj().value
        on_count(count)
        for future in finished:
            number = futures[future].number
            entries[number] = future.result()
            on_shard(number, entries[number])
        last, before = (count, len(pending)), last
        silent = silent + 1 if last == before else 0  # polls, not seconds, for this program may be suspended
        if silent * POLL_SECONDS >= PATIENCE_SECONDS:
            raise PatchgenError(
                f"{folder}: the worker processes have made nothing for {PATIENCE_SECONDS:.0f} s; see whether the "
                "disk answers, and run the same command again to go on"
            )
    return entries


_worker_state: tuple[Job, "Synchronized[int]", ctypes.c_byte] | None = None


def _start_worker(shared: _Shared, counter: "Synchronized[int]", stop: ctypes.c_byte) -> None:
    global _worker_state  # noqa: PLW0603 - the pool's initializer has no other way to hand state to its tasks
    from patchgen.pipeline.shard_writer import configure_process  # noqa: PLC0415 - see the module docstring

    configure_process()
    job = dataclasses.replace(shared.job, pyramids=map_pyramids(shared.spill, shared.stored))
    _worker_state = (job, counter, stop)
    die_with_parent()


def _work(task: Task) -> dict[str, Any]:
    if _worker_state is None:
        raise RuntimeError("the worker's initializer did not run")
    from patchgen.pipeline.shard_writer import build_shard  # noqa: PLC0415 - see the module docstring

    job, counter, stop = _worker_state

    def on_patches(count: int) -> None:
        if stop.value:
            raise StoppedError
        with counter.get_lock():
            counter.value += count

    return build_shard(job, task, on_patches)
