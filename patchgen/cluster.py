"""Shards built by the workers of a Dask cluster, a shard a task; they write into the build's folder, which all see.

A worker that dies loses its shard, which another one builds again.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from manifests.terminal import note
from patchgen.errors import PatchgenError
from patchgen.folder import PLAN_NAME
from patchgen.pool import Crew, Entries, OnCount, OnShard
from patchgen.shard import Job, Task

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local:"
CONNECT_SECONDS = 30
RETRIES = 3
"""Deaths of workers, one after another, that a shard may see; then it is taken to be what kills them."""


@contextmanager
def cluster(scheduler: str) -> Iterator[Crew]:
    """The workers of the scheduler at an address such as ``tcp://host:8786``; ``local:N`` starts N on this machine.

    Raises:
        PatchgenError: Dask is not installed, the scheduler does not answer, or a worker has another version or does
            not see the folder.
    """
    try:
        import distributed  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PatchgenError(
            "--scheduler: Dask is not installed; run pip install 'single-image-distillation[cluster]'"
        ) from error
    try:
        with _client(distributed, scheduler) as client:
            yield functools.partial(_build, client)
    except distributed.scheduler.KilledWorker as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: {error.allowed_failures + 1} workers died one after another over "
            f"{error.task}, perhaps for memory; run the same command again to go on"
        ) from error


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
    except (OSError, ValueError) as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: does not answer: {str(error).splitlines()[0]}; start one with 'dask scheduler'"
        ) from error
    with client:
        yield client


def _build(client: "Client", job: Job, tasks: list[Task], on_count: OnCount, on_shard: OnShard) -> Entries:
    """As ``pool.build_shards``."""
    from distributed import as_completed  # noqa: PLC0415 - an extra

    entries: Entries = {}
    if not tasks:
        return entries
    note(f"{len(client.nthreads())} workers build {len(tasks)} shards")
    shared = client.scatter(job, broadcast=True, hash=False)
    by_key = {f"{task.tar_name}-{job.plan_id[:16]}": task for task in tasks}
    futures = client.map(_work, tasks, key=list(by_key), job=shared, versions=_versions(), pure=False)
    done = 0
    try:
        for future, entry in as_completed(futures, with_results=True):
            task = by_key[future.key]
            entries[task.number] = entry
            on_shard(task.number, entry)
            done += task.n
            on_count(done)
            future.release()  # the scheduler need not keep what is on the disk
    finally:
        client.cancel(futures)
    return entries


def _work(task: Task, job: Job, versions: dict[str, str]) -> dict[str, Any]:
    """In a worker: build a shard, if this is a place that can."""
    from patchgen.write import build_shard, configure_process  # noqa: PLC0415 - see ``pool``

    where = f"Dask's worker {_address()}"
    if (mine := _versions()) != versions:
        name = next(name for name in versions if mine.get(name) != versions[name])
        raise PatchgenError(f"{where}: has {name} {mine.get(name)}, the build {versions[name]}; install that there")
    if not (job.folder / PLAN_NAME).exists():
        raise PatchgenError(f"{where}: does not see {job.folder}; give an --out that every worker sees")
    configure_process()
    return build_shard(job, task, lambda count: None)


@functools.cache
def _versions() -> dict[str, str]:
    """Of all that bytes depend on, tables among them."""
    from patchgen.environment import PACKAGES, environment  # noqa: PLC0415 - it loads OpenCV

    return {name: version for name, version in environment("exact").items() if name in PACKAGES}


def _address() -> str:
    from distributed import get_worker  # noqa: PLC0415 - an extra

    return str(get_worker().address)
