"""Shards built by the workers of a Dask cluster, a shard a task; they put them on the build's shelf themselves.

A worker that dies loses its shard, which another one builds again.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from manifests.errors import PatchSetError
from manifests.support.console import note
from manifests.support.counts import counted
from patchgen.errors import PatchgenError
from patchgen.pipeline.process_pool import POLL_SECONDS, Entries, OnCount, OnShard
from patchgen.pipeline.shard import Job, Task
from patchgen.pipeline.shard_store import Builder, Crew, Made, Shelf

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local:"
PACKAGE = "single-image-distillation"
CONNECT_SECONDS = 30
LOOK_SECONDS, ALONE_SECONDS = 5.0, 600.0
"""How often to look, in the middle of a build, whether there are workers, and how long to wait for new ones."""


@contextmanager
def cluster(scheduler: str, shelf: Shelf) -> Iterator[Crew]:
    """The workers of the scheduler at an address such as ``tcp://host:8786``; ``local:N`` starts N on this machine.

    Raises:
        PatchgenError: Dask is not installed, the scheduler does not answer, or a worker has another version or cannot
            put anything on the shelf.
    """
    try:
        import distributed  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PatchgenError(
            "--scheduler: Dask is not installed; run pip install 'single-image-distillation[cluster]'"
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what ends a build is told in one line
    try:
        with _client(distributed, scheduler) as client:
            yield Crew(build=functools.partial(_build, client, shelf), shelf=shelf)
    except distributed.scheduler.KilledWorker as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: {error.allowed_failures + 1} workers died one after another over "
            f"{error.task}, perhaps for memory; run the same command again to go on"
        ) from error
    except _LostError as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: is gone, or gave up the build; run the same command again to go on"
        ) from error


class _LostError(Exception):
    """The scheduler is gone, or has no more of the build."""


@contextmanager
def _client(distributed: Any, scheduler: str) -> Iterator["Client"]:
    if scheduler.startswith(LOCAL):
        count = int(scheduler.removeprefix(LOCAL))
        with (
            distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0") as here,
            distributed.Client(here) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:  # by kinds of addresses
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PatchgenError(
            f"--scheduler {scheduler}: does not answer: {reason}; start one with 'dask scheduler'"
        ) from error
    with client:
        _await_workers(client, scheduler)
        yield client


def _await_workers(client: "Client", scheduler: str) -> None:
    """Dask would wait for them in silence."""
    if client.nthreads():
        return
    note(f"{scheduler} has no workers yet; start some with 'dask worker {scheduler}'")
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: has no workers; start some with 'dask worker {scheduler}', then run the same "
            "command again"
        ) from error


def _build(
    client: "Client", shelf: Shelf, job: Job, tasks: list[Task], on_count: OnCount, on_shard: OnShard
) -> Entries:
    """As ``pool.build_shards``."""
    from distributed.comm.core import CommClosedError  # noqa: PLC0415

    entries: Entries = {}
    if not tasks:
        return entries
    note(f"building {counted(len(tasks), 'shard')} with {counted(len(client.nthreads()), 'worker')}")
    _require_package(client)
    job = dataclasses.replace(job, folder=job.folder.absolute())  # workers were started in other places
    shared, builder = client.scatter([job, shelf.begin()], broadcast=True, hash=False)
    run = uuid.uuid4().hex[:16]  # Dask would hand a task the result of another build's of the same name
    by_key = {f"{task.tar_name}-{run}": task for task in tasks}
    futures = client.map(
        _work, tasks, key=list(by_key), job=shared, builder=builder, versions=_versions(), pure=False
    )
    done = 0
    try:
        for future, made in _arriving(client, futures):
            if not isinstance(made, Made):  # Dask hands out as a result that there will be none
                raise _LostError(str(made))
            task = by_key[future.key]
            shelf.keep(job, task, made)
            entries[task.number] = made.entry
            on_shard(task.number, made.entry)
            done += task.n
            on_count(done)
            future.release()  # the scheduler need not keep what is on the disk
    except (CommClosedError, CancelledError) as error:
        raise _LostError from error
    finally:
        with contextlib.suppress(CommClosedError, CancelledError):  # the scheduler may be gone
            client.cancel(futures)
    return entries


def _arriving(client: "Client", futures: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Futures and their results as they come. Dask would wait for ever, in silence, for workers that are all gone.

    Raises:
        PatchgenError: there are none, and none come.
    """
    from distributed import as_completed  # noqa: PLC0415 - an extra

    completed = as_completed(futures, with_results=True)
    last, alone = time.monotonic(), 0.0
    while not completed.is_empty():
        if completed.has_ready():
            yield next(completed)
            continue
        time.sleep(POLL_SECONDS)
        if time.monotonic() - last >= LOOK_SECONDS:
            alone = 0.0 if _has_workers(client) else alone + LOOK_SECONDS
            last = time.monotonic()
            if alone == LOOK_SECONDS:
                note("no worker is left; waiting for new ones")
            if alone >= ALONE_SECONDS:
                raise PatchgenError(
                    f"no worker was left for {alone:.0f} s; start some, then run the same command again to go on"
                )


def _has_workers(client: "Client") -> bool:
    try:
        return bool(client.nthreads())
    except OSError as error:
        raise _LostError from error


def _require_package(client: "Client") -> None:
    """What is sent to workers cannot be told apart by one that lacks this package.

    Raises:
        PatchgenError: one does.
    """
    found = client.run(importlib.util.find_spec, "patchgen.pipeline.dask_backend", on_error="return")
    for address, spec in found.items():
        if spec is None or isinstance(spec, Exception):
            raise PatchgenError(f"Dask's worker {address}: has no package {PACKAGE}; install it there")


def _work(task: Task, job: Job, builder: Builder, versions: dict[str, str]) -> Made:
    """In a worker: build a shard, if this is a place that can."""
    from patchgen.pipeline.shard_writer import configure_process  # noqa: PLC0415 - see ``pool``

    try:
        if (mine := _versions()) != versions:
            name = next(name for name in versions if mine.get(name) != versions[name])
            raise PatchgenError(f"has {name} {mine.get(name)}, the build {versions[name]}; install that there")
        configure_process()
        return builder(job, task, _stop_if_cancelled)
    except (PatchgenError, PatchSetError) as error:
        raise PatchgenError(f"Dask's worker {_address()}: {error}") from None  # Dask logs causes, which may be secret


def _stop_if_cancelled(count: int) -> None:
    """Dask lets a task that nobody wants any more run to its end, unless it gives up.

    Raises:
        Reschedule: nobody does.
    """
    from distributed import Reschedule, get_worker  # noqa: PLC0415 - an extra

    worker = get_worker()
    state = worker.state.tasks.get(worker.get_current_task())
    if state is not None and state.state == "cancelled":
        raise Reschedule


@functools.cache
def _versions() -> dict[str, str]:
    """Of all that bytes depend on, tables among them."""
    from patchgen.environment import PACKAGES, environment  # noqa: PLC0415 - it loads OpenCV

    return {name: version for name, version in environment("exact").items() if name in PACKAGES}


def _address() -> str:
    from distributed import get_worker  # noqa: PLC0415 - an extra

    return str(get_worker().address)
