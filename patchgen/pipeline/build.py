"""Wiring of a build: claim the folder, build what is missing in several processes, write the manifest last."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from manifests.export.finalize import has_exports, write_manifest
from manifests.format import shard_table
from manifests.format.digest import pixel_root
from manifests.format.schema import Manifest, make_manifest
from manifests.support.console import detail, progress_bar
from manifests.support.counts import counted
from manifests.support.files import describe_os_error, hold_folder, remove_parts
from patchgen.environment import environment
from patchgen.errors import PatchgenError
from patchgen.pipeline.output_dir import claim_folder, mark_finished, mark_unfinished
from patchgen.pipeline.plan import PhotoPlan, Plan
from patchgen.pipeline.process_pool import Entries, OnShard, build_shards
from patchgen.pipeline.shard import Job, Task, tasks_for
from patchgen.pipeline.shard_store import Crew, FolderShelf
from patchgen.pixels.geometry import build_pyramids
from patchgen.pixels.pyramid import Pyramid
from patchgen.sources.photo import Photo


def build(
    plan: PhotoPlan,
    photos: Sequence[Photo],
    folder: Path,
    *,
    workers: int | Crew,
    extend: bool = False,
    expected: Manifest | None = None,
) -> Manifest:
    """Write the set that ``plan`` describes into ``folder``, or finish one that an earlier run began.

    Shards that are already there and whole are kept. The result does not depend on ``workers``, processes of this
    machine or a crew elsewhere. With ``extend`` the folder may hold a shorter set of the same plan. With ``expected``
    every shard must be the one that manifest names, and the set gets that manifest, byte for byte if its tables are
    the same too.

    Raises:
        PatchgenError: as ``write_set``.
    """
    tasks = list(tasks_for(plan.n, plan.shard_size))
    pyramids = partial(_pyramids, plan, photos)
    return write_set(plan, tasks, folder, workers=workers, pyramids=pyramids, extend=extend, expected=expected)


def build_part(plan: PhotoPlan, photos: Sequence[Photo], folder: Path, numbers: range, *, workers: int) -> None:
    """Build only the shards ``numbers`` of a set, beside other processes, here or elsewhere, that build others.

    ``build`` finishes the set when all are there.

    Raises:
        PatchgenError: as ``write_set``.
    """
    tasks = [task for task in tasks_for(plan.n, plan.shard_size) if task.number in numbers]
    with _explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder, shared=True):
            manifest = claim_folder(folder, plan, extend=False)
            job, crew = _job(plan, folder, partial(_pyramids, plan, photos)), _crew(workers)
            finished = _finished_shards(job, tasks, crew, manifest)
            _build_missing(job, tasks, finished, crew, lambda number, entry: None)


def _pyramids(plan: PhotoPlan, photos: Sequence[Photo]) -> tuple[Pyramid, ...]:
    return build_pyramids(plan.recipe.geometry, plan.size, [photo.pixels for photo in photos])


def write_set(
    plan: Plan,
    tasks: Sequence[Task],
    folder: Path,
    *,
    workers: int | Crew,
    pyramids: Callable[[], tuple[Pyramid, ...]] = tuple,
    extend: bool = False,
    expected: Manifest | None = None,
) -> Manifest:
    """Write the shards of ``tasks`` and a manifest of ``plan``, as ``build`` says; ``pyramids`` are what tasks read.

    Raises:
        PatchgenError: the folder holds something else or is in use, the disk is full or fails, a worker
            process died, or a shard is not as expected. Finished shards stay, and the same build run again goes
            on from them.
    """
    with _explaining(folder):
        # The marker of an unfinished build is written here, so a full disk can show here first.
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder):
            try:
                manifest = claim_folder(folder, plan, extend=extend)
                remove_parts(folder)
                return _finish(plan, _job(plan, folder, pyramids), tasks, _crew(workers), manifest, expected)
            finally:
                with contextlib.suppress(OSError):
                    remove_parts(folder)


@contextlib.contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    """Turn what may go wrong while shards are written into ``folder`` into a line that says how to go on."""
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


def _crew(workers: int | Crew) -> Crew:
    if isinstance(workers, Crew):
        return workers
    return Crew(build=partial(build_shards, workers), shelf=FolderShelf())


def _job(plan: Plan, folder: Path, pyramids: Callable[[], tuple[Pyramid, ...]]) -> Job:
    return Job(
        recipe=plan.recipe,
        pyramids=pyramids(),
        size=plan.size,
        seed=plan.seed,
        plan_id=plan.plan_id,
        folder=folder,
    )


def _finish(
    plan: Plan,
    job: Job,
    tasks: Sequence[Task],
    crew: Crew,
    manifest: Manifest | None,
    expected: Manifest | None,
) -> Manifest:
    """Write what is missing beside ``manifest``, the one that is there."""
    folder = job.folder
    entries = _finished_shards(job, tasks, crew, manifest)
    if manifest is not None:
        plan = plan.with_card_of(manifest)
        if len(entries) == plan.shards == len(manifest.shards) and _is_complete(folder, manifest, plan):
            mark_finished(folder)  # a build killed in its last moment leaves its marker beside the manifest
            return manifest
        mark_unfinished(folder, plan)
    shards = _build_missing(job, tasks, entries, crew, _comparison(folder, expected))
    manifest = _manifest(plan, folder, shards)
    if expected is not None and _shards(expected) == shards:
        manifest = expected
    write_manifest(folder, manifest)
    mark_finished(folder)
    return manifest


def _is_complete(folder: Path, manifest: Manifest, plan: Plan) -> bool:
    """Whether nothing is left to write for a set whose shards are all there."""
    sources = [source.model_dump(mode="json") for source in manifest.sources]
    return manifest.n == plan.n and sources == list(plan.sources) and has_exports(folder, manifest)


def _shards(manifest: Manifest) -> list[dict[str, Any]]:
    return [shard.model_dump(mode="json") for shard in manifest.shards]


def _comparison(folder: Path, expected: Manifest | None) -> OnShard:
    """What looks at each finished shard's entry: nothing, or whether it is the expected one."""
    if expected is None:
        return lambda number, entry: None
    shards = _shards(expected)

    def compare(number: int, entry: dict[str, Any]) -> None:
        for key in ("bytes", "sha256"):
            if entry[key] != shards[number][key]:
                raise PatchgenError(
                    f"{folder / entry['name']}: {key} is {entry[key]}, the manifest says {shards[number][key]}: "
                    "this machine makes other bytes of the same recipe; compare 'patchgen info' of the set with "
                    "'patchgen doctor' here"
                )

    return compare


def _finished_shards(job: Job, tasks: Sequence[Task], crew: Crew, manifest: Manifest | None) -> Entries:
    """The shards that need not be built; where there is a manifest, only those that are what it says."""
    finished = crew.shelf.finished(job, tasks)
    return {number: entry for number, entry in finished.items() if _entry(manifest, number) in (None, entry)}


def _entry(manifest: Manifest | None, number: int) -> dict[str, Any] | None:
    """A shard's entry in a finished set's manifest, if it has that many."""
    if manifest is None or number >= len(manifest.shards):
        return None
    return manifest.shards[number].model_dump(mode="json")


def _build_missing(
    job: Job, tasks: Sequence[Task], entries: Entries, crew: Crew, on_shard: OnShard
) -> list[dict[str, Any]]:
    """Every shard's entry, in order, once those that ``entries`` lacks are built; ``on_shard`` hears of each."""
    for number, entry in entries.items():
        on_shard(number, entry)
    detail(f"{len(entries)} of {counted(len(tasks), 'shard')} found; plan {job.plan_id}")
    missing = [task for task in tasks if task.number not in entries]
    n = sum(task.n for task in tasks)
    done = n - sum(task.n for task in missing)
    with progress_bar("patches", n) as update:
        update(done)
        built = crew.build(job, missing, lambda count: update(done + count), on_shard)
    return [(entries | built)[task.number] for task in tasks]


def _manifest(plan: Plan, folder: Path, shards: list[dict[str, Any]]) -> Manifest:
    digests = (shard_table.read_pixel_digests(folder / shard["parquet"]["name"], shard["n"]) for shard in shards)
    return make_manifest(
        n=plan.n,
        size=plan.size,
        seed=plan.seed,
        encoding=plan.recipe.encoding_json(),
        recipe=plan.recipe.pixels_json(),
        sources=list(plan.sources),
        shards=shards,
        pixel_root=pixel_root(digests),
        environment=environment(plan.recipe.profile),
    )
