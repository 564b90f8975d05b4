"""Build a set: claim its folder, build the missing shards, write the manifest last."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from manifests.export.finalize import has_exports, write_manifest
from manifests.format import shard_table
from manifests.format.digest import pixel_root
from manifests.format.schema import Manifest, Shard, make_manifest
from manifests.support.console import counting, detail, progress_bar
from manifests.support.counts import counted
from manifests.support.files import describe_os_error, hold_folder, remove_parts
from patchgen.environment import environment
from patchgen.errors import PatchgenError
from patchgen.pipeline.dask_backend import DaskExecutor
from patchgen.pipeline.output_dir import claim_folder, mark_finished, mark_unfinished
from patchgen.pipeline.plan import BuildPlan, PhotoPlan
from patchgen.pipeline.process_pool import build_shards
from patchgen.pipeline.shard import BuildContext, ShardTask
from patchgen.pipeline.shard_output import LocalOutput
from patchgen.sources.photo import Photo

ShardExecutor = int | DaskExecutor  # what builds shards: processes of this machine, or the workers of a cluster


def build(
    plan: BuildPlan,
    photos: Sequence[Photo],
    folder: Path,
    *,
    workers: ShardExecutor,
    extend: bool = False,
    expected: Manifest | None = None,
) -> Manifest:
    """Write the set of ``plan`` into ``folder``, or finish one that an earlier run began; return its manifest.

    Intact shards that are already there are kept. The result does not depend on ``workers``: a number of processes,
    or a cluster. With ``extend`` the folder may hold a shorter set of the same plan. With ``expected`` every shard
    must be the one of that manifest, and the set gets that manifest itself if its tables are the same too.
    After an error, finished shards stay, and the same build run again goes on from them.
    """
    with _hold(folder):
        try:
            manifest = claim_folder(folder, plan, extend=extend)
            remove_parts(folder)
            context = _make_context(plan, folder, photos)
            return _finish(plan, context, workers, manifest, expected)
        finally:
            with contextlib.suppress(OSError):
                remove_parts(folder)


def build_part(plan: PhotoPlan, photos: Sequence[Photo], folder: Path, numbers: range, *, workers: int) -> None:
    """Build only the shards ``numbers`` of a set; other processes or machines may build others in the same folder.

    ``build`` finishes the set when all are there.
    """
    with _hold(folder, shared=True):
        manifest = claim_folder(folder, plan, extend=False)
        context = _make_context(plan, folder, photos)
        tasks = plan.tasks()[numbers.start : numbers.stop]
        finished = _find_finished(context, tasks, LocalOutput(), manifest)
        _build_missing(context, tasks, finished, workers)


@contextlib.contextmanager
def _hold(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Lock a folder, and turn errors of writing shards there into one line that says how to go on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder, shared=shared):
            yield
    except BlockingIOError as error:
        raise PatchgenError(f"{folder}: another build is writing here; wait for it to end") from error
    except OSError as error:
        raise PatchgenError(f"{describe_os_error(error, folder)} and run the same command again to go on") from error
    except BrokenProcessPool as error:
        raise PatchgenError(
            f"{folder}: a worker process was killed, perhaps for memory; run the same command again to go on, "
            "with fewer --workers if it happens again"
        ) from error


def _make_context(plan: BuildPlan, folder: Path, photos: Sequence[Photo]) -> BuildContext:
    same: dict[str, Any] = {key: getattr(plan, key) for key in ("recipe", "size", "seed", "plan_id")}
    return BuildContext(pyramids=plan.pyramids(photos), folder=folder, **same)


def _finish(
    plan: BuildPlan,
    context: BuildContext,
    workers: ShardExecutor,
    manifest: Manifest | None,
    expected: Manifest | None,
) -> Manifest:
    """Write what is missing. ``manifest`` is that of the finished or shorter set in the folder, if there is one."""
    folder, tasks = context.folder, plan.tasks()
    output = LocalOutput() if isinstance(workers, int) else workers.output
    finished = _find_finished(context, tasks, output, manifest)
    if manifest is not None:
        plan = plan.with_cards_of(manifest)
        sources = [source.model_dump(mode="json") for source in manifest.sources]
        same_cards = manifest.n == plan.n and sources == list(plan.sources)
        if len(finished) == plan.shards == len(manifest.shards) and same_cards and has_exports(folder, manifest):
            mark_finished(folder)  # a build killed in its last moment leaves its own file beside the manifest
            return manifest
        mark_unfinished(folder, plan)
    shards = _build_missing(context, tasks, finished, workers, expected)
    manifest = _make_manifest(plan, folder, shards)
    if expected is not None and expected.shards == manifest.shards:
        manifest = expected
    write_manifest(folder, manifest)
    mark_finished(folder)
    return manifest


def _require_same(folder: Path, built: Shard, expected: Shard) -> None:
    for key in ("bytes", "sha256"):
        found, wanted = getattr(built, key), getattr(expected, key)
        if found != wanted:
            raise PatchgenError(
                f"{folder / built.name}: {key} is {found}, the manifest says {wanted}: this machine makes other "
                "bytes of the same recipe; compare 'patchgen info' of the set with 'patchgen doctor' here"
            )


def _find_finished(
    context: BuildContext, tasks: Sequence[ShardTask], output: LocalOutput, manifest: Manifest | None
) -> dict[int, Shard]:
    """Return the shards that need not be built: intact, and as ``manifest`` says if it has them."""
    known = dict(enumerate(manifest.shards)) if manifest is not None else {}
    finished = output.find_finished(context, tasks)
    return {number: shard for number, shard in finished.items() if known.get(number, shard) == shard}


def _build_missing(
    context: BuildContext,
    tasks: Sequence[ShardTask],
    finished: dict[int, Shard],
    workers: ShardExecutor,
    expected: Manifest | None = None,
) -> list[Shard]:
    """Build the shards that are not ``finished``; return all in order. Each must be the one of ``expected``."""
    missing = [task for task in tasks if task.number not in finished]
    there = [(task, finished[task.number]) for task in tasks if task.number in finished]
    detail(f"{len(finished)} of {counted(len(tasks), 'shard')} found; plan {context.plan_id}")
    n = sum(task.n for task in tasks)
    shards = {}
    with progress_bar("patches", n) as update:
        on_patches = counting(update)
        on_patches(n - sum(task.n for task in missing))
        build_them = partial(build_shards, workers) if isinstance(workers, int) else workers.build_shards
        with contextlib.closing(build_them(context, missing, on_patches)) as built:
            for task, shard in itertools.chain(there, built):
                if expected is not None:
                    _require_same(context.folder, shard, expected.shards[task.number])
                shards[task.number] = shard
    return [shards[task.number] for task in tasks]


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
