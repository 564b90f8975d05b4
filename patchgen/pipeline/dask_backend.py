"""Build shards with the workers of a Dask cluster, one task a shard. The workers put the tars where they belong.

If a worker dies, another one builds its shard again.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from manifests.errors import PatchSetError
from manifests.support.console import note
from manifests.support.counts import counted
from patchgen.errors import PatchgenError
from patchgen.pipeline.shard import BuildContext, BuiltShard, BuiltTasks, OnPatches, ShardTask
from patchgen.pipeline.shard_output import LocalOutput, ShardBuilder

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30


@contextmanager
def connect(scheduler: str, output: LocalOutput) -> Iterator["DaskExecutor"]:
    """Connect to the scheduler at an address such as ``tcp://host:8786``; ``local:N`` starts N workers here."""
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
    except (distributed.comm.core.CommClosedError, CancelledError) as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: is gone, or gave up the build; run the same command again to go on"
        ) from error


@contextmanager
def _client(distributed: Any, scheduler: str) -> Iterator["Client"]:
    if scheduler.startswith("local:"):
        count = int(scheduler.removeprefix("local:"))
        cluster = distributed.LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0")
        with cluster, distributed.Client(cluster) as client:
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
            advice = f"start some with 'dask worker {scheduler}'"
            note(f"{scheduler} has no workers yet; {advice}")
            try:
                client.wait_for_workers(1, timeout=CONNECT_SECONDS)
            except TimeoutError as error:
                raise PatchgenError(f"--scheduler {scheduler}: has no workers; {advice} and try again") from error
        yield client


class DaskExecutor:
    """Builds shards with the workers of a cluster; their tars go to ``output``."""

    def __init__(self, client: "Client", output: LocalOutput) -> None:
        self._client, self.output = client, output

    def build_shards(self, context: BuildContext, tasks: list[ShardTask], on_patches: OnPatches) -> BuiltTasks:
        """Build the shards of ``tasks`` as ``process_pool.build_shards`` does."""
        from distributed import as_completed  # noqa: PLC0415 - an extra
        from distributed.comm.core import CommClosedError  # noqa: PLC0415

        if not tasks:
            return
        client = self._client
        note(f"building {counted(len(tasks), 'shard')} with {counted(len(client.nthreads()), 'worker')}")
        _require_package(client)
        context = dataclasses.replace(context, folder=context.folder.absolute())  # workers run in other folders
        shared, builder = client.scatter([context, self.output.begin()], broadcast=True, hash=False)
        run = uuid.uuid4().hex[:16]  # else Dask would return the result of another build's task of the same name
        by_key = {f"{task.tar_name}-{run}": task for task in tasks}
        options = {"context": shared, "builder": builder, "versions": _versions()}
        futures = client.map(_build_in_worker, tasks, key=list(by_key), pure=False, **options)
        try:
            for future, built in as_completed(futures, with_results=True):
                if not isinstance(built, BuiltShard):  # Dask returns the error of a lost task as its result
                    raise CancelledError(str(built))
                task = by_key[future.key]
                self.output.keep(context, task, built)
                future.release()  # the scheduler need not keep what is on the disk
                yield task, built.shard
                on_patches(task.n)
        finally:
            with contextlib.suppress(CommClosedError, CancelledError):  # the scheduler may be gone
                client.cancel(futures)


def _require_package(client: "Client") -> None:
    """Check that every worker has this package; without it, it could not even report its error."""
    found = client.run(importlib.util.find_spec, "patchgen.pipeline.dask_backend", on_error="return")
    for address, spec in found.items():
        if spec is None or isinstance(spec, Exception):
            raise PatchgenError(f"Dask's worker {address}: has no package single-image-distillation; install it")


def _build_in_worker(
    task: ShardTask, context: BuildContext, builder: ShardBuilder, versions: dict[str, str]
) -> BuiltShard:
    """Build a shard in a worker, if that has the versions of the machine that runs the build."""
    from distributed import get_worker  # noqa: PLC0415 - an extra

    from patchgen.pipeline.shard_writer import configure_process  # noqa: PLC0415 - see ``process_pool``

    try:
        if (found := _versions()) != versions:
            name = next(name for name in versions if found.get(name) != versions[name])
            raise PatchgenError(f"has {name} {found.get(name)}, the build {versions[name]}; install that there")
        configure_process()
        return builder(context, task)
    except (PatchgenError, PatchSetError) as error:
        # Without the cause, which may contain secrets: Dask logs it.
        raise PatchgenError(f"Dask's worker {get_worker().address}: {error}") from None


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of all packages that the bytes of shards and tables depend on."""
    from patchgen.environment import PACKAGES, environment  # noqa: PLC0415 - it loads OpenCV

    return {name: version for name, version in environment("exact").items() if name in PACKAGES}
