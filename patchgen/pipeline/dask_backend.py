"""Build shards with the workers of a Dask cluster, one task a shard. The workers put the tars where they belong.

If a worker dies, another one builds its shard again.
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
from manifests.format.schema import Shard
from manifests.support.console import note
from manifests.support.counts import counted
from patchgen.errors import PatchgenError
from patchgen.pipeline.process_pool import POLL_SECONDS, OnShard
from patchgen.pipeline.shard import BuildContext, BuiltShard, ShardTask
from patchgen.pipeline.shard_output import OnPatches, ShardBuilder, ShardOutput

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local:"
PACKAGE = "single-image-distillation"
CONNECT_SECONDS = 30
CHECK_SECONDS, NO_WORKER_SECONDS = 5.0, 600.0
"""How often to check during a build whether there are workers, and how long to wait for new ones."""


class _LostError(Exception):
    """The scheduler is gone, or has no more of the build."""


@contextmanager
def connect(scheduler: str, output: ShardOutput) -> Iterator["DaskExecutor"]:
    """Connect to the scheduler at an address such as ``tcp://host:8786``; ``local:N`` starts N workers here.

    Raises:
        PatchgenError: Dask is not installed, the scheduler does not answer, or a worker has another version or cannot
            write to the output.
    """
    try:
        import distributed  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PatchgenError(
            "--scheduler: Dask is not installed; run pip install 'single-image-distillation[cluster]'"
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # an error is reported in one line
    try:
        with _client(distributed, scheduler) as client:
            yield DaskExecutor(client, output)
    except distributed.scheduler.KilledWorker as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: {error.allowed_failures + 1} workers died one after another over "
            f"{error.task}, perhaps for memory; run the same command again to go on"
        ) from error
    except _LostError as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: is gone, or gave up the build; run the same command again to go on"
        ) from error


@contextmanager
def _client(distributed: Any, scheduler: str) -> Iterator["Client"]:
    if scheduler.startswith(LOCAL):
        count = int(scheduler.removeprefix(LOCAL))
        with (
            distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0") as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:  # depends on the kind of address
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PatchgenError(
            f"--scheduler {scheduler}: does not answer: {reason}; start one with 'dask scheduler'"
        ) from error
    with client:
        if not client.nthreads():  # Dask would wait for workers without a word
            note(f"{scheduler} has no workers yet; start some with 'dask worker {scheduler}'")
            try:
                client.wait_for_workers(1, timeout=CONNECT_SECONDS)
            except TimeoutError as error:
                raise PatchgenError(
                    f"--scheduler {scheduler}: has no workers; start some with 'dask worker {scheduler}', then run "
                    "the same command again"
                ) from error
        yield client


class DaskExecutor:
    """Builds shards with the workers of a cluster; their tars go to ``output``."""

    def __init__(self, client: "Client", output: ShardOutput) -> None:
        self._client, self.output = client, output

    def build_shards(
        self, context: BuildContext, tasks: list[ShardTask], on_patches: OnPatches, on_shard: OnShard
    ) -> dict[int, Shard]:
        """Build the shards of ``tasks`` as ``process_pool.build_shards`` does."""
        from distributed.comm.core import CommClosedError  # noqa: PLC0415

        shards: dict[int, Shard] = {}
        if not tasks:
            return shards
        client = self._client
        note(f"building {counted(len(tasks), 'shard')} with {counted(len(client.nthreads()), 'worker')}")
        _require_package(client)
        context = dataclasses.replace(context, folder=context.folder.absolute())  # workers run in other folders
        shared, builder = client.scatter([context, self.output.begin()], broadcast=True, hash=False)
        run = uuid.uuid4().hex[:16]  # else Dask would return the result of another build's task of the same name
        by_key = {f"{task.tar_name}-{run}": task for task in tasks}
        futures = client.map(
            _build_in_worker,
            tasks,
            key=list(by_key),
            context=shared,
            builder=builder,
            versions=_versions(),
            pure=False,
        )
        try:
            for future, built in _results(client, futures):
                if not isinstance(built, BuiltShard):  # Dask returns the error of a lost task as its result
                    raise _LostError(str(built))
                task = by_key[future.key]
                self.output.keep(context, task, built)
                shards[task.number] = built.shard
                on_shard(task, built.shard)
                on_patches(task.n)
                future.release()  # the scheduler need not keep what is on the disk
        except (CommClosedError, CancelledError) as error:
            raise _LostError from error
        finally:
            with contextlib.suppress(CommClosedError, CancelledError):  # the scheduler may be gone
                client.cancel(futures)
        return shards


def _results(client: "Client", futures: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield futures with their results as they come. Dask itself would wait forever if no worker is left.

    Raises:
        PatchgenError: there was no worker for ``NO_WORKER_SECONDS``.
    """
    from distributed import as_completed  # noqa: PLC0415 - an extra

    completed = as_completed(futures, with_results=True)
    last_check, idle_seconds = time.monotonic(), 0.0
    while not completed.is_empty():
        if completed.has_ready():
            yield next(completed)
            continue
        time.sleep(POLL_SECONDS)
        if time.monotonic() - last_check < CHECK_SECONDS:
            continue
        last_check = time.monotonic()
        try:
            idle_seconds = 0.0 if client.nthreads() else idle_seconds + CHECK_SECONDS
        except OSError as error:
            raise _LostError from error
        if idle_seconds == CHECK_SECONDS:
            note("no worker is left; waiting for new ones")
        if idle_seconds >= NO_WORKER_SECONDS:
            raise PatchgenError(
                f"no worker was left for {idle_seconds:.0f} s; start some, then run the same command again to go on"
            )


def _require_package(client: "Client") -> None:
    """Check that every worker has this package; without it, it could not even report its error.

    Raises:
        PatchgenError: a worker lacks it.
    """
    found = client.run(importlib.util.find_spec, "patchgen.pipeline.dask_backend", on_error="return")
    for address, spec in found.items():
        if spec is None or isinstance(spec, Exception):
            raise PatchgenError(f"Dask's worker {address}: has no package {PACKAGE}; install it there")


def _build_in_worker(
    task: ShardTask, context: BuildContext, builder: ShardBuilder, versions: dict[str, str]
) -> BuiltShard:
    """Build a shard in a worker, if that has the versions of the machine that runs the build."""
    from patchgen.pipeline.shard_writer import configure_process  # noqa: PLC0415 - see ``process_pool``

    try:
        if (found := _versions()) != versions:
            name = next(name for name in versions if found.get(name) != versions[name])
            raise PatchgenError(f"has {name} {found.get(name)}, the build {versions[name]}; install that there")
        configure_process()
        return builder(context, task, _stop_if_cancelled)
    except (PatchgenError, PatchSetError) as error:
        # Without the cause, which may contain secrets: Dask logs it.
        raise PatchgenError(f"Dask's worker {_worker_address()}: {error}") from None


def _stop_if_cancelled(count: int) -> None:
    """Raise ``Reschedule`` if the task was cancelled: Dask would let it run to its end."""
    from distributed import Reschedule, get_worker  # noqa: PLC0415 - an extra

    worker = get_worker()
    state = worker.state.tasks.get(worker.get_current_task())
    if state is not None and state.state == "cancelled":
        raise Reschedule


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of all packages that the bytes of shards and tables depend on."""
    from patchgen.environment import PACKAGES, environment  # noqa: PLC0415 - it loads OpenCV

    return {name: version for name, version in environment("exact").items() if name in PACKAGES}


def _worker_address() -> str:
    from distributed import get_worker  # noqa: PLC0415 - an extra

    return str(get_worker().address)
