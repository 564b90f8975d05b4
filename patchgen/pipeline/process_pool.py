"""Build shards in several processes of this machine. The shards may finish in any order.

A fork server imports ``shard_writer`` once for all workers, while this program reads the photos.
"""

import ctypes
import pickle
import signal
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np

from manifests.format.schema import Shard
from manifests.support import processes
from manifests.support.files import part_prefix
from patchgen.errors import PatchgenError
from patchgen.pipeline import shard_writer
from patchgen.pipeline.shard import BuildContext, BuiltTasks, OnPatches, ShardTask

POLL_SECONDS = 0.2
STUCK_SECONDS = 600.0  # a build without a new patch for so long ends, for example if the disk hangs


def build_shards(workers: int, context: BuildContext, tasks: list[ShardTask], on_patches: OnPatches) -> BuiltTasks:
    """Build shards in ``workers`` processes, or in this process for one worker or one task. Yield (task, shard).

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    if min(workers, len(tasks)) > 1:
        yield from _build_in_pool(workers, context, tasks, on_patches)
        return
    shard_writer.configure_process()
    for task in tasks:
        yield task, shard_writer.build_shard(context, task, on_patches)


def _build_in_pool(workers: int, context: BuildContext, tasks: list[ShardTask], on_patches: OnPatches) -> BuiltTasks:
    server = processes.start_server("patchgen.pipeline.shard_writer")
    with processes.explaining_start():
        counter, stop = server.Value("q", 0), server.RawValue("b", 0)  # read without a lock
    array_file = context.folder / f"{part_prefix()}pyramids"
    pool = None
    try:
        pickled, lengths = _store_context(context, array_file)
        arguments = (pickled, array_file, lengths, counter, stop)
        with processes.explaining_start(), processes.starting_processes():
            pool = ProcessPoolExecutor(min(workers, len(tasks)), server, _start_worker, arguments)
            futures = {pool.submit(_build_in_worker, task): task for task in tasks}
        yield from _collect(futures, counter, context.folder, on_patches)
    finally:
        if pool is not None:
            with processes.handling(signal.SIG_IGN):  # a second Ctrl-C must not prevent the end of the workers
                stop.value = 1  # workers read this every few patches, so an error or Ctrl-C ends them in milliseconds
                processes.end_pool(pool)
        array_file.unlink(missing_ok=True)


def _store_context(context: BuildContext, path: Path) -> tuple[bytes, list[int]]:
    """Pickle ``context`` without arrays, and write the arrays to ``path``. Return pickle and arrays' byte counts."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(context, protocol=5, buffer_callback=buffers.append)
    with path.open("wb") as file:
        return pickled, [file.write(buffer.raw()) for buffer in buffers]


def _collect(
    futures: dict[Future[Shard], ShardTask], counter: "Synchronized[int]", folder: Path, on_patches: OnPatches
) -> BuiltTasks:
    pending, count, idle_polls = set(futures), 0, 0
    while pending:
        finished, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        previous, count = count, counter.get_obj().value
        on_patches(count - previous)
        for future in finished:
            yield futures[future], future.result()
        # Polls and not seconds are counted, because this program may be suspended.
        idle_polls = 0 if finished or count > previous else idle_polls + 1
        if idle_polls * POLL_SECONDS >= STUCK_SECONDS:
            raise PatchgenError(
                f"{folder}: the worker processes wrote no patch for {STUCK_SECONDS:.0f} s; check that the disk "
                "responds, and run the same command again to continue"
            )


_worker_state: tuple[BuildContext, "Synchronized[int]", ctypes.c_byte] | None = None


def _start_worker(
    pickled: bytes, array_file: Path, lengths: list[int], counter: "Synchronized[int]", stop: ctypes.c_byte
) -> None:
    global _worker_state  # noqa: PLW0603 - the pool's initializer has no other way to hand state to its tasks
    shard_writer.configure_process()
    arrays: list[Any] = np.split(np.memmap(array_file, mode="r"), np.cumsum(lengths)[:-1]) if lengths else []
    context = pickle.loads(pickled, buffers=arrays)  # noqa: S301 - from our parent
    _worker_state = (context, counter, stop)
    processes.die_with_parent()


def _build_in_worker(task: ShardTask) -> Shard:
    if _worker_state is None:
        raise RuntimeError("the worker's initializer did not run; report this to the authors of this package")
    context, counter, stop = _worker_state

    def on_patches(count: int) -> None:
        if stop.value:
            raise CancelledError
        with counter.get_lock():
            counter.value += count

    return shard_writer.build_shard(context, task, on_patches)
