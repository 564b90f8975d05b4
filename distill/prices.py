"""Wiring: what the trainings of a table would cost here, each kind of them measured for a moment."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from distill.config import Config, SupervisedConfig
from distill.data.labelled import load_labelled
from distill.device import pick_device
from distill.errors import DistillError
from distill.estimate import Cost, duration, size_of
from distill.run import estimate_run
from distill.table.jobs import Job, Plan
from distill.table.runner import is_done
from distill.table.schema import DATA
from distill.teach import estimate_teaching
from manifests.terminal import progress_bar

USUAL_SIZE = 32
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".bmp")


def prices(plan: Plan, out: Path, device: str) -> dict[str, Cost]:
    """What each chosen training that has not ended would cost on ``device``, by job; each kind is measured.

    Raises:
        DistillError: data cannot be read, or a config asks for what there is not.
    """
    waiting = [job for job in plan.chosen.values() if job.config is not None and not is_done(out, job)]
    counts: dict[str, tuple[int, int]] = {}
    measured: dict[str, Cost] = {}
    found = {}
    with progress_bar("measuring what it costs", len(waiting)) as update:
        for number, job in enumerate(waiting):
            update(number, job.name)
            key = _kind(job)
            if key not in measured:
                try:
                    measured[key] = _price(plan, job, counts, pick_device(device))
                except DistillError as error:
                    raise DistillError(f"{job.name}: {error}") from error
            found[job.name] = measured[key]
    return found


def _kind(job: Job) -> str:
    """What the cost of a training depends on: all of its config but the seed, and how much an epoch is."""
    config = job.config.model_dump(mode="json", exclude={"paper"}) if job.config else {}
    config.get("train", {}).pop("seed", None)
    return f"{config} {job.n} {job.epoch_of} {set_of(job)}"


def set_of(job: Job) -> str | None:
    """The job that makes a training's set; None of one from labels."""
    return next((need for need in job.needs if need.startswith("sets/")), None)


def _price(plan: Plan, job: Job, counts: dict[str, tuple[int, int]], device: torch.device) -> Cost:
    if isinstance(job.config, SupervisedConfig):
        n, size = _count(plan, job.epoch_of or "", counts)
        return estimate_teaching(job.config, n, job.config.data.size or size, device)
    assert isinstance(job.config, Config)  # noqa: S101 - the only other kind
    if job.epoch_of is not None:
        n, size = _count(plan, job.epoch_of, counts)
        return estimate_run(job.config, n, size, device)
    built = plan.table.sets[str(set_of(job)).removeprefix("sets/")]
    return estimate_run(job.config, job.n or 1, built.size or USUAL_SIZE, device)


def _count(plan: Plan, name: str, counts: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """How many images an input has, and their size in pixels."""
    if name not in counts:
        path = plan.wish.inputs[name]
        if plan.table.inputs()[name] == DATA:
            images = load_labelled(path, None, "train")
            counts[name] = len(images.labels), images.size
        else:
            files = [file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
            counts[name] = max(len(files), 1), USUAL_SIZE
    return counts[name]


def describe_cost(plan: Plan, costs: Mapping[str, Cost], out: Path, devices: list[str]) -> list[str]:
    """What the chosen jobs would cost, in lines: the longest trainings, and all."""
    done = sum(is_done(out, job) for job in plan.chosen.values())
    seconds = sum(cost.seconds for cost in costs.values())
    decoded = {set_of(plan.jobs[name]): cost.decoded for name, cost in costs.items()}
    disk = sum(cost.disk for cost in costs.values()) + sum(decoded.values())
    memory = max((cost.memory for cost in costs.values()), default=0)
    free = shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if p.exists())).free
    lines = [f"{name}: {cost}, {cost.images_per_second:,.0f} images/s" for name, cost in costs.items()]
    sets = sum(job.config is None and not is_done(out, job) for job in plan.chosen.values())
    lines.append(
        f"{len(costs)} trainings on {', '.join(devices)}: about {duration(seconds / len(devices))}, up to "
        f"{size_of(memory)} of memory and {size_of(disk)} of disk ({size_of(free)} are free)"
        + (f"; {sets} sets and images to make before, which is not counted" if sets else "")
        + (f"; {done} jobs are done" if done else "")
    )
    return lines
