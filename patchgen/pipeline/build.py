"""Build a set: claim its folder, build the missing shards, write the manifest last."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.export.finalize import has_exports, write_manifest
from manifests.format import shard_table
from manifests.format.digest import pixel_root
from manifests.format.schema import Manifest, Shard, make_manifest
from manifests.support.console import counting, detail, progress_bar
from manifests.support.counts import counted
from manifests.support.files import describe_os_error, hold_folder, remove_parts
from patchgen.environment import environment
from patchgen.errors import PatchgenError
from patchgen.pipeline.output_dir import claim_folder, mark_finished, mark_unfinished
from patchgen.pipeline.plan import BuildPlan, PhotoPlan
from patchgen.pipeline.process_pool import OnShard, build_shards
from patchgen.pipeline.shard import BuildContext, ShardTask, plan_tasks
from patchgen.pipeline.shard_output import LocalOutput, ShardOutput
from patchgen.pixels.geometry import build_pyramids
from patchgen.pixels.pyramid import Pyramid
from patchgen.sources.photo import Photo

if TYPE_CHECKING:
    from patchgen.pipeline.dask_backend import DaskExecutor

    ShardExecutor = int | DaskExecutor
    """What builds shards: so many processes of this machine, or the workers of a Dask cluster."""


def build(
    plan: PhotoPlan,
    photos: Sequence[Photo],
    folder: Path,
    *,
    workers: "ShardExecutor",
    extend: bool = False,
    expected: Manifest | None = None,
) -> Manifest:
    """Write the set of ``plan`` into ``folder``, or finish one that an earlier run began; return its manifest.

    Intact shards that are already there are kept. The result does not depend on ``workers``: a number of processes,
    or a cluster. With ``extend`` the folder may hold a shorter set of the same plan. With ``expected`` every shard
    must be the one of that manifest, and the set gets that manifest itself if its tables are the same too.

    Raises:
        PatchgenError: as ``write_set``.
    """
    tasks = list(plan_tasks(plan.n, plan.shard_size))
    pyramids = partial(_build_pyramids, plan, photos)
    return write_set(plan, tasks, folder, workers=workers, pyramids=pyramids, extend=extend, expected=expected)


def build_part(plan: PhotoPlan, photos: Sequence[Photo], folder: Path, numbers: range, *, workers: int) -> None:
    """Build only the shards ``numbers`` of a set; other processes or machines may build others in the same folder.

    ``build`` finishes the set when all are there.

    Raises:
        PatchgenError: as ``write_set``.
    """
    tasks = [task for task in plan_tasks(plan.n, plan.shard_size) if task.number in numbers]
    with _one_line_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder, shared=True):
            manifest = claim_folder(folder, plan, extend=False)
            context = _context(plan, folder, _build_pyramids(plan, photos))
            finished = _find_finished(context, tasks, LocalOutput(), manifest)
            _build_missing(context, tasks, finished, workers, lambda task, shard: None)


def _build_pyramids(plan: PhotoPlan, photos: Sequence[Photo]) -> tuple[Pyramid, ...]:
    return build_pyramids(plan.recipe.geometry, plan.size, [photo.pixels for photo in photos])


def write_set(
    plan: BuildPlan,
    tasks: Sequence[ShardTask],
    folder: Path,
    *,
    workers: "ShardExecutor",
    pyramids: Callable[[], tuple[Pyramid, ...]] = tuple,
    extend: bool = False,
    expected: Manifest | None = None,
) -> Manifest:
    """Write the shards of ``tasks`` and the manifest of ``plan``, as ``build`` says; ``pyramids`` makes their input.

    Raises:
        PatchgenError: the folder holds something else or is in use, the disk is full or fails, a worker
            process died, or a shard is not as expected. Finished shards stay, and the same build run again goes
            on from them.
    """
    with _one_line_errors(folder):
        # ``claim_folder`` writes a file, so a full disk can show here first.
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder):
            try:
                manifest = claim_folder(folder, plan, extend=extend)
                remove_parts(folder)
                return _finish(plan, _context(plan, folder, pyramids()), tasks, workers, manifest, expected)
            finally:
                with contextlib.suppress(OSError):
                    remove_parts(folder)


@contextlib.contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    """Turn errors of writing shards into ``folder`` into one line that says how to go on."""
    try:
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


def _context(plan: BuildPlan, folder: Path, pyramids: tuple[Pyramid, ...]) -> BuildContext:
    return BuildContext(
        recipe=plan.recipe,
        pyramids=pyramids,
        size=plan.size,
        seed=plan.seed,
        plan_id=plan.plan_id,
        folder=folder,
    )


def _finish(
    plan: BuildPlan,
    context: BuildContext,
    tasks: Sequence[ShardTask],
    workers: "ShardExecutor",
    manifest: Manifest | None,
    expected: Manifest | None,
) -> Manifest:
    """Write what is missing. ``manifest`` is that of the finished or shorter set in the folder, if there is one."""
    folder = context.folder
    output = LocalOutput() if isinstance(workers, int) else workers.output
    finished = _find_finished(context, tasks, output, manifest)
    if manifest is not None:
        plan = plan.with_cards_of(manifest)
        if len(finished) == plan.shards == len(manifest.shards) and _is_complete(folder, manifest, plan):
            mark_finished(folder)  # a build killed in its last moment leaves its own file beside the manifest
            return manifest
        mark_unfinished(folder, plan)
    shards = _build_missing(context, tasks, finished, workers, _comparison(folder, expected))
    manifest = _make_manifest(plan, folder, shards)
    if expected is not None and expected.shards == manifest.shards:
        manifest = expected
    write_manifest(folder, manifest)
    mark_finished(folder)
    return manifest


def _is_complete(folder: Path, manifest: Manifest, plan: BuildPlan) -> bool:
    """Return whether nothing is left to write for a set whose shards are all there."""
    sources = [source.model_dump(mode="json") for source in manifest.sources]
    return manifest.n == plan.n and sources == list(plan.sources) and has_exports(folder, manifest)


def _comparison(folder: Path, expected: Manifest | None) -> OnShard:
    """Return a function that refuses a shard that is not that of ``expected``."""
    if expected is None:
        return lambda task, shard: None
    shards = expected.shards

    def compare(task: ShardTask, shard: Shard) -> None:
        for key in ("bytes", "sha256"):
            found, wanted = getattr(shard, key), getattr(shards[task.number], key)
            if found != wanted:
                raise PatchgenError(
                    f"{folder / shard.name}: {key} is {found}, the manifest says {wanted}: this machine makes other "
                    "bytes of the same recipe; compare 'patchgen info' of the set with 'patchgen doctor' here"
                )

    return compare


def _find_finished(
    context: BuildContext, tasks: Sequence[ShardTask], output: ShardOutput, manifest: Manifest | None
) -> dict[int, Shard]:
    """Return the shards that need not be built: intact, and as ``manifest`` says if it has them."""
    known = dict(enumerate(manifest.shards)) if manifest is not None else {}
    finished = output.find_finished(context, tasks)
    return {number: shard for number, shard in finished.items() if known.get(number, shard) == shard}


def _build_missing(
    context: BuildContext,
    tasks: Sequence[ShardTask],
    finished: dict[int, Shard],
    workers: "ShardExecutor",
    on_shard: OnShard,
) -> list[Shard]:
    """Build the shards that are not ``finished``; return all in order. ``on_shard`` is called with each of them."""
    missing = [task for task in tasks if task.number not in finished]
    for task in tasks:
        if task.number in finished:
            on_shard(task, finished[task.number])
    detail(f"{len(finished)} of {counted(len(tasks), 'shard')} found; plan {context.plan_id}")
    n = sum(task.n for task in tasks)
    with progress_bar("patches", n) as update:
        on_patches = counting(update)
        on_patches(n - sum(task.n for task in missing))
        if isinstance(workers, int):
            built = build_shards(workers, context, missing, on_patches, on_shard)
        else:
            built = workers.build_shards(context, missing, on_patches, on_shard)
    return [(finished | built)[task.number] for task in tasks]


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
