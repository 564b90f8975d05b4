"""Build shards with the workers of a Dask cluster. One task builds one shard.

If a worker dies, another worker builds the shard again.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from manifests.errors import PatchSetError
from manifests.format.schema import Shard
from manifests.support.console import note, progress_bar
from manifests.support.counts import counted
from manifests.support.processes import usable_cores
from patchgen.errors import PatchgenError
from patchgen.pipeline import shard_writer
from patchgen.pipeline.output_dir import PLAN_NAME
from patchgen.pipeline.plan import PACKAGES, environment
from patchgen.pipeline.shard import BuildContext, BuiltTasks, OnPatches, ShardTask, finished_shard

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 30
MAX_THREADS = 8  # largest number of threads that hash shards; a disk is not faster with more


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuiltShard:
    """The result of a worker that built a shard."""

    shard: Shard  # manifest entry
    table: bytes | None = None  # the shard's Parquet file, if the worker did not write it into the build's folder


ShardBuilder = Callable[[BuildContext, ShardTask], BuiltShard]
"""A function that builds a shard and writes the tar to the output. Dask workers call it on their machines."""


class LocalOutput:
    """The output of a build whose workers write into the build's folder. All workers must share this folder."""

    def find_finished(self, context: BuildContext, tasks: Sequence[ShardTask]) -> dict[int, Shard]:
        """Return a dict from shard number to manifest entry, for the intact shards in the folder of the build."""
        shards = {}
        pool = ThreadPoolExecutor(min(usable_cores(), MAX_THREADS))  # hashing releases the interpreter lock
        try:
            found = pool.map(functools.partial(finished_shard, context.folder, context.plan_id), tasks)
            with progress_bar("checking shards", len(tasks)) as update:
                for done, (task, shard) in enumerate(zip(tasks, found, strict=True), 1):
                    if shard is not None:
                        shards[task.number] = shard
                    update(done)
        finally:
            pool.shutdown(cancel_futures=True)
        return shards

    def begin(self) -> ShardBuilder:
        """Prepare the output for new shards. Return the function that workers call to build a shard."""
        return _build_in_folder

    def keep(self, context: BuildContext, task: ShardTask, built: BuiltShard) -> None:
        """Record that a shard is finished. A local output needs no record: the worker wrote into the folder."""


def _build_in_folder(context: BuildContext, task: ShardTask) -> BuiltShard:
    if not (context.folder / PLAN_NAME).exists():
        raise PatchgenError(f"this worker has no folder {context.folder}; choose an --out that all workers share")
    return BuiltShard(shard=shard_writer.build_shard(context, task, lambda count: None))


@contextlib.contextmanager
def connect(scheduler: str, output: LocalOutput) -> Iterator["DaskExecutor"]:
    """Yield an executor. ``scheduler`` is an address like ``tcp://host:8786``, or ``local:N`` to start N workers."""
    try:
        import distributed  # noqa: PLC0415 - an extra
    except ImportError as error:
        advice = "run pip install 'single-image-distillation[cluster]'"
        raise PatchgenError(f"--scheduler {scheduler}: Dask is not installed; {advice}") from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # an error is reported in one line
    try:
        with _client(distributed, scheduler) as client:
            yield DaskExecutor(client, output)
    except distributed.scheduler.KilledWorker as error:
        raise PatchgenError(
            f"--scheduler {scheduler}: {error.allowed_failures + 1} workers died while they built {error.task}, "
            "possibly because memory was short; run the same command again to continue"
        ) from error
    except (distributed.comm.core.CommClosedError, CancelledError) as error:
        what = "the connection to the scheduler ended during the build"
        raise PatchgenError(f"--scheduler {scheduler}: {what}; run the same command again to continue") from error


@contextlib.contextmanager
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
        what = f"the scheduler does not answer: {reason}"
        raise PatchgenError(f"--scheduler {scheduler}: {what}; check the address, or run 'dask scheduler'") from error
    with client:
        if not client.nthreads():  # Dask would wait for workers without a message
            advice = f"start workers with 'dask worker {scheduler}'"
            note(f"{scheduler} has no workers yet; {advice}")
            try:
                client.wait_for_workers(1, timeout=CONNECT_SECONDS)
            except TimeoutError as error:
                what = "the scheduler has no workers"
                raise PatchgenError(f"--scheduler {scheduler}: {what}; {advice} and try again") from error
        yield client


class DaskExecutor:
    """Builds shards with the workers of a Dask cluster. The workers write the tars to ``output``."""

    def __init__(self, client: "Client", output: LocalOutput) -> None:
        self._client, self.output = client, output

    def build_shards(self, context: BuildContext, tasks: list[ShardTask], on_patches: OnPatches) -> BuiltTasks:
        """Build the shards of ``tasks``. Yield (task, manifest entry) for each finished shard, in any order."""
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
            with contextlib.suppress(CommClosedError, CancelledError):  # the scheduler may have ended
                client.cancel(futures)


def _require_package(client: "Client") -> None:
    """Check that every worker has this package. A worker without the package could not report its error."""
    found = client.run(importlib.util.find_spec, "patchgen.pipeline.dask_backend", on_error="return")
    for address, spec in found.items():
        if spec is None or isinstance(spec, Exception):
            what = "the package single-image-distillation is not installed"
            raise PatchgenError(f"Dask's worker {address}: {what}; install it on the worker's machine")


def _build_in_worker(
    task: ShardTask, context: BuildContext, builder: ShardBuilder, versions: dict[str, str]
) -> BuiltShard:
    """Build a shard in a worker. Raise an error if the worker's packages have other versions than ``versions``."""
    from distributed import get_worker  # noqa: PLC0415 - an extra

    try:
        if (found := _versions()) != versions:
            name = next(name for name in versions if found.get(name) != versions[name])
            what = f"the worker has {name} {found.get(name)}, but the build needs {versions[name]}"
            raise PatchgenError(f"{what}; install {name} {versions[name]} on the worker's machine")
        shard_writer.configure_process()
        return builder(context, task)
    except (PatchgenError, PatchSetError) as error:
        # Without the cause, which may contain secrets: Dask logs it.
        raise PatchgenError(f"Dask's worker {get_worker().address}: {error}") from None


@functools.cache
def _versions() -> dict[str, str]:
    """Return the installed version of each package that determines the bytes of shards and tables."""
    return {name: version for name, version in environment("exact").items() if name in PACKAGES}
