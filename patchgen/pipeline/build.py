"""Build a set: check the output folder, build the missing shards, write the manifest last."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from manifests.export.finalize import has_exports, write_manifest
from manifests.format import shard_table
from manifests.format.digest import pixel_root
from manifests.format.schema import Manifest, Shard, make_manifest
from manifests.support.console import counting, detail, note, progress_bar
from manifests.support.counts import counted
from manifests.support.files import describe_os_error, hold_folder, remove_parts
from patchgen.errors import PatchgenError
from patchgen.pipeline.dask_backend import DaskExecutor, LocalOutput
from patchgen.pipeline.output_dir import claim_folder, mark_finished, mark_unfinished, read_manifest
from patchgen.pipeline.plan import BuildPlan, Photos, environment, plan_of
from patchgen.pipeline.process_pool import build_shards
from patchgen.pipeline.shard import BuildContext, ShardTask

ShardExecutor = int | DaskExecutor  # a number of processes on this machine, or the workers of a cluster


def build(
    plan: BuildPlan,
    photos: Photos,
    folder: Path,
    *,
    workers: ShardExecutor,
    extend: bool = False,
    expected: Manifest | None = None,
) -> Manifest:
    """Write the set of ``plan`` into ``folder``, and return the manifest. Keep intact shards of earlier runs.

    The bytes do not depend on ``workers``. With ``extend``, ``folder`` may contain the same set with fewer patches.
    ``expected`` is the manifest of a set to rebuild: every tar must have the size and SHA-256 in ``expected``. If
    all tables are equal too, write ``expected`` as the manifest.
    """
    with _hold(folder):
        try:
            manifest = claim_folder(folder, plan, extend=extend)
            remove_parts(folder)
            return _finish(plan, plan.context(photos, folder), workers, manifest, expected)
        finally:
            with contextlib.suppress(OSError):
                remove_parts(folder)


def extend(folder: Path, n: int, photos: Photos, *, workers: ShardExecutor) -> Manifest:
    """Add patches to the set in ``folder`` until it has ``n`` patches. Continue an extension that was interrupted."""
    manifest = read_manifest(folder)
    if n < manifest.n:
        what = f"the set has {counted(manifest.n, 'patch')} already, which is more than --n {n}"
        raise PatchgenError(f"{folder}: {what}; give a larger --n")
    return build(plan_of(manifest, photos, n=n), photos, folder, workers=workers, extend=True)


def build_part(plan: BuildPlan, photos: Photos, folder: Path, numbers: range, *, workers: int) -> None:
    """Build only the shards with these ``numbers``. Other processes or machines may build other shards in ``folder``.

    This function writes no manifest. When all shards exist, call ``build`` to write the manifest.
    """
    with _hold(folder, shared=True):
        manifest = claim_folder(folder, plan, extend=False)
        context = plan.context(photos, folder)
        tasks = plan.tasks()[numbers.start : numbers.stop]
        _build_missing(context, tasks, _find_finished(context, tasks, LocalOutput(), manifest), workers)


@contextlib.contextmanager
def _hold(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Create and lock ``folder`` for a ``with`` block. Convert write errors in the block to a ``PatchgenError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder, shared=shared):
            yield
    except BlockingIOError as error:
        raise PatchgenError(f"{folder}: another build writes to this folder; try again when it ends") from error
    except OSError as error:
        advice = "and run the same command again to continue"
        raise PatchgenError(f"{describe_os_error(error, folder)} {advice}") from error
    except BrokenProcessPool as error:
        raise PatchgenError(
            f"{folder}: a worker process was killed, possibly because memory was short; run the same command again "
            "to continue, with fewer --workers if this happens twice"
        ) from error


def _finish(
    plan: BuildPlan,
    context: BuildContext,
    workers: ShardExecutor,
    manifest: Manifest | None,
    expected: Manifest | None,
) -> Manifest:
    """Build the missing shards, then write the manifest. ``manifest`` is from an earlier run, or None."""
    folder, tasks = context.folder, plan.tasks()
    output = LocalOutput() if isinstance(workers, int) else workers.output
    finished = _find_finished(context, tasks, output, manifest)
    if manifest is not None:
        plan = plan.with_cards_of(manifest)
        sources = [source.model_dump(mode="json") for source in manifest.sources]
        same_cards = manifest.n == plan.n and sources == list(plan.sources)
        if len(finished) == plan.shards == len(manifest.shards) and same_cards and has_exports(folder, manifest):
            mark_finished(folder)  # a build that was killed at its end leaves its plan beside the manifest
            return manifest
        mark_unfinished(folder, plan)
    shards = _build_missing(context, tasks, finished, workers, expected)
    manifest = _make_manifest(plan, folder, shards)
    if expected is not None and expected.shards == manifest.shards:
        manifest = expected
    write_manifest(folder, manifest)
    mark_finished(folder)
    return manifest


def _find_finished(
    context: BuildContext, tasks: Sequence[ShardTask], output: LocalOutput, manifest: Manifest | None
) -> dict[int, Shard]:
    """Return the intact shards, by shard number. Omit a shard that differs from its entry in ``manifest``."""
    known = dict(enumerate(manifest.shards)) if manifest is not None else {}
    finished = output.find_finished(context, tasks)
    kept = {number: shard for number, shard in finished.items() if known.get(number, shard) == shard}
    (note if kept else detail)(f"{counted(len(kept), 'intact shard')} kept, {len(tasks) - len(kept)} to build")
    return kept


def _build_missing(
    context: BuildContext,
    tasks: Sequence[ShardTask],
    finished: dict[int, Shard],
    workers: ShardExecutor,
    expected: Manifest | None = None,
) -> list[Shard]:
    """Build missing shards, and return all shards in order. A shard that differs from ``expected`` is an error."""
    missing = [task for task in tasks if task.number not in finished]
    existing = [(task, finished[task.number]) for task in tasks if task.number in finished]
    n = sum(task.n for task in tasks)
    shards = {}
    with progress_bar("patches", n) as update:
        on_patches = counting(update)
        on_patches(n - sum(task.n for task in missing))
        build_them = partial(build_shards, workers) if isinstance(workers, int) else workers.build_shards
        with contextlib.closing(build_them(context, missing, on_patches)) as built:
            for task, shard in itertools.chain(existing, built):
                if expected is not None:
                    _require_same(context.folder, shard, expected.shards[task.number])
                shards[task.number] = shard
    return [shards[task.number] for task in tasks]


def _require_same(folder: Path, built: Shard, expected: Shard) -> None:
    if (built.bytes, built.sha256) != (expected.bytes, expected.sha256):
        raise PatchgenError(
            f"{folder / built.name}: the built shard has {built.bytes} bytes and sha256 {built.sha256}, but the "
            f"manifest declares {expected.bytes} bytes and sha256 {expected.sha256}; run 'patchgen doctor', and "
            "install the package versions that 'patchgen info' prints for the set"
        )


def _make_manifest(plan: BuildPlan, folder: Path, shards: list[Shard]) -> Manifest:
    digests = (shard_table.read_pixel_digests(folder / shard.parquet.name, shard.n) for shard in shards)
    return make_manifest(
        n=plan.n,
        size=plan.size,
        seed=plan.seed,
        encoding=plan.recipe.encoding_json(),
        recipe=plan.recipe.pixels_json(),
        sources=list(plan.sources),
        shards=[shard.model_dump(mode="json") for shard in shards],
        pixel_root=pixel_root(digests),
        environment=environment(plan.recipe.profile),
    )
