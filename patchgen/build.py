"""Wiring of a build: claim the folder, build what is missing in several processes, write the manifest last."""

import importlib.metadata
import platform
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from manifests import rows
from manifests.digest import pixel_root
from manifests.files import describe_os_error, hold_folder, remove_parts, write_atomically
from manifests.patchset import MANIFEST_NAME
from manifests.schema import Manifest, make_manifest
from manifests.terminal import progress_bar
from patchgen.errors import PatchgenError
from patchgen.plan import PLAN_NAME, Plan, claim_folder, mark_unfinished
from patchgen.pool import Entries, build_shards
from patchgen.shard import Job, finished_shard, tasks_for
from patchgen.source import Photo, build_pyramid


def build(plan: Plan, photo: Photo, folder: Path, *, workers: int) -> Manifest:
    """Write the set that ``plan`` describes into ``folder``, or finish one that an earlier run began.

    Shards that are already there and whole are kept. The result does not depend on ``workers``.

    Raises:
        PatchgenError: the folder holds something else or is in use, the disk is full or fails, or a worker
            process died. Finished shards stay, and the same build run again goes on from them.
    """
    try:
        # The marker of an unfinished build is written here, so a full disk can show here first.
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder):
            manifest = claim_folder(folder, plan)
            remove_parts(folder)
            job = Job(
                recipe=plan.recipe,
                pyramid=build_pyramid(photo.pixels),
                size=plan.size,
                seed=plan.seed,
                plan_id=plan.plan_id,
                folder=folder,
            )
            entries = _finished_shards(job, plan, manifest)
            if manifest is not None:
                plan = plan.with_card_of(manifest)
                if len(entries) == len(manifest.shards) and list(plan.sources) == _sources(manifest):
                    return manifest
                mark_unfinished(folder, plan)
            manifest = _manifest(plan, folder, _build_missing(job, plan, entries, workers))
            write_atomically(folder / MANIFEST_NAME, manifest.to_json())
            (folder / PLAN_NAME).unlink(missing_ok=True)
            return manifest
    except BlockingIOError as error:
        raise PatchgenError(f"{folder}: another build is writing here; wait for it to end") from error
    except OSError as error:
        raise PatchgenError(
            f"{describe_os_error(error, folder)} and run the same command again to go on"
        ) from error
    except BrokenProcessPool as error:
        raise PatchgenError(
            f"{folder}: a worker process was killed, perhaps for memory; run the same command again to go on, "
            "with fewer --workers if it happens again"
        ) from error


def _sources(manifest: Manifest) -> list[dict[str, Any]]:
    return [source.model_dump(mode="json") for source in manifest.sources]


def _finished_shards(job: Job, plan: Plan, manifest: Manifest | None) -> Entries:
    """The shards that need not be built; where there is a manifest, only those that are what it says."""
    entries: Entries = {}
    with progress_bar("checking shards", plan.shards) as update:
        for task in tasks_for(plan.n, plan.shard_size):
            entry = finished_shard(job.folder, job.plan_id, task)
            known = manifest and manifest.shards[task.number].model_dump(mode="json")
            if entry is not None and known in (None, entry):
                entries[task.number] = entry
            update(task.number + 1)
    return entries


def _build_missing(job: Job, plan: Plan, entries: Entries, workers: int) -> list[dict[str, Any]]:
    """Every shard's entry, in order, once those that ``entries`` lacks are built."""
    tasks = list(tasks_for(plan.n, plan.shard_size))
    missing = [task for task in tasks if task.number not in entries]
    done = plan.n - sum(task.n for task in missing)
    with progress_bar("patches", plan.n) as update:
        update(done)
        built = build_shards(job, missing, workers, lambda count: update(done + count))
    return [(entries | built)[task.number] for task in tasks]


def _manifest(plan: Plan, folder: Path, shards: list[dict[str, Any]]) -> Manifest:
    digests = (rows.read_pixel_digests(folder / shard["parquet"]["name"]) for shard in shards)
    return make_manifest(
        n=plan.n,
        size=plan.size,
        seed=plan.seed,
        encoding=plan.recipe.encoding_json(),
        recipe=plan.recipe.pixels_json(),
        sources=list(plan.sources),
        shards=shards,
        pixel_root=pixel_root(digests),
        environment=_environment(),
    )


def _environment() -> dict[str, str]:
    names = ("albumentations", "numpy", "opencv-python-headless", "pyarrow", "single-image-distillation")
    versions = {name: importlib.metadata.version(name) for name in names}
    return versions | {"python": platform.python_version(), "machine": platform.machine()}
