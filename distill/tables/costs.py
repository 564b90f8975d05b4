"""What the jobs of a table cost on this machine: one measured step time for each kind of training."""

import functools
import os
import shutil
from pathlib import Path

from distill.config.schema import SupervisedConfig
from distill.data.labelled import count_images, load_labelled
from distill.errors import DistillError
from distill.runtime.device import pick_device
from distill.tables.jobs import Job
from distill.tables.plan import Plan
from distill.tables.records import is_done
from distill.tables.schema import LABELLED_DATA
from distill.training.cost_estimate import BYTES_PER_PIXEL, Cost, estimate_cost, format_bytes, format_duration
from manifests.support.console import progress_bar
from manifests.support.counts import counted

DEFAULT_SIZE = 32  # pixels a side of patches where neither the table nor the data says it


def estimate_jobs(plan: Plan, out: Path, device: str) -> dict[str, Cost | str]:
    """Return the cost on ``device`` of each selected training that is not done, by job, or why it was not measured.

    A training that cannot be measured is no error here: its job will report the fault.
    """
    waiting = [job for job in plan.chosen.values() if job.config is not None and not is_done(out, job)]
    costs: dict[str, Cost | str] = {}
    by_kind: dict[str, Cost | str] = {}
    with progress_bar("measuring costs", len(waiting)) as update:
        for number, job in enumerate(waiting):
            update(number, job.name)
            config = job.config and job.config.model_dump(mode="json", exclude={"paper": True, "train": {"seed"}})
            kind = f"{config} {job.n} {job.epoch_input} {job.set_name}"  # what decides the cost
            if kind not in by_kind:
                try:
                    by_kind[kind] = _estimate(plan, job, device)
                except DistillError as error:
                    by_kind[kind] = str(error)
            costs[job.name] = by_kind[kind]
    return costs


def _estimate(plan: Plan, job: Job, device: str) -> Cost:
    config, name, picked = job.config, str(job.set_name), pick_device(device)
    if isinstance(config, SupervisedConfig):
        n, size = _count_images(plan, str(job.epoch_input), config.data.size)
        return estimate_cost(config, n=n, size=size, device=picked)
    if config is None:
        raise TypeError(f"{job.name} is no training")
    if job.epoch_input is not None:
        n, size = _count_images(plan, job.epoch_input, plan.table.packs[name].size)
    else:
        n, size = job.n or 1, plan.table.sets[name].size or DEFAULT_SIZE
    return estimate_cost(config, n=n, size=size, device=picked)


def _count_images(plan: Plan, name: str, size: int | None) -> tuple[int, int]:
    """Return the number of training images of an input, and their size in pixels: ``size`` if it is set."""
    path = plan.options.inputs[name]
    if plan.table.inputs()[name] == LABELLED_DATA:
        return _count_labelled(path, size)
    return count_images(path), size or DEFAULT_SIZE


@functools.lru_cache(64)  # several kinds of trainings read the same data
def _count_labelled(path: Path, size: int | None) -> tuple[int, int]:
    images = load_labelled(path, size, "train")
    return len(images.labels), size or images.size


def describe_cost(plan: Plan, costs: dict[str, Cost | str], out: Path, devices: list[str]) -> list[str]:
    """Return the cost of each selected training, and of all jobs, as lines."""
    waiting = [job for job in plan.chosen.values() if not is_done(out, job)]
    done = len(plan.chosen) - len(waiting)
    if not waiting:
        return ["the job is done" if done == 1 else f"all {done} jobs are done"]
    measured = {name: cost for name, cost in costs.items() if isinstance(cost, Cost)}
    lines = [f"{name}: {cost}, {cost.images_per_second:,.0f} images/s" for name, cost in measured.items()]
    lines += [f"{name}: not measured: {cost}" for name, cost in costs.items() if isinstance(cost, str)]
    seconds = sum(cost.seconds for cost in measured.values()) / len(devices)
    memory = max((cost.memory for cost in measured.values()), default=0)
    disk, unknown = _disk(plan, waiting, measured), len(costs) - len(measured)
    free = shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if os.path.exists(p))).free  # noqa: PTH110
    lines.append(
        f"{counted(len(waiting), 'job')}, {len(costs)} of them training, on {', '.join(devices)}: about "
        f"{format_duration(seconds)} and the time to build sets, start programs and evaluate, "
        f"up to {format_bytes(memory)} of memory, "
        f"{format_bytes(disk)} of disk ({format_bytes(free)} are free{': too little' if disk > free else ''})"
        + (f"; {counted(unknown, 'job')} not measured" if unknown else "")
        + (f"; {counted(done, 'job')} done" if done else "")
    )
    return lines


def _disk(plan: Plan, waiting: list[Job], measured: dict[str, Cost]) -> int:
    """Return the bytes of all sets, of the decoded ones, and of the run directories."""
    decoded = {plan.jobs[name].set_name: cost.decoded for name, cost in measured.items()}
    built = [(job.n or 0, plan.table.sets.get(job.name.removeprefix("sets/"))) for job in waiting if not job.config]
    pixels = sum(n * ((each.size if each else None) or DEFAULT_SIZE) ** 2 for n, each in built)
    return pixels * BYTES_PER_PIXEL + sum(cost.disk for cost in measured.values()) + sum(decoded.values())
