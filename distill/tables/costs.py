"""Estimate what the jobs of a table cost on this machine: measure a few steps for each kind of training."""

import functools
import os
import shutil
from pathlib import Path

from distill.config.schema import Config, SupervisedConfig
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

DEFAULT_SIZE = 32  # pixels a side of patches if neither the table nor the data declares their size


def estimate_jobs(plan: Plan, out: Path, device: str) -> dict[str, Cost | str]:
    """Return a dict by job name: the cost on ``device`` of each training that is not yet done in the folder ``out``.

    If a training cannot be measured, the value is an error message. The job itself will report the error.
    """
    waiting = [(job, job.config) for job in plan.chosen.values() if job.config is not None and not is_done(out, job)]
    costs: dict[str, Cost | str] = {}
    by_kind: dict[str, Cost | str] = {}
    with progress_bar("measuring costs", len(waiting)) as update:
        for number, (job, config) in enumerate(waiting):
            update(number, job.name)
            settings = config.model_dump(mode="json", exclude={"paper": True, "train": {"seed"}})
            kind = f"{settings} {job.n} {job.epoch_input} {job.set_name}"  # everything that the cost depends on
            if kind not in by_kind:
                try:
                    by_kind[kind] = _estimate(plan, job, config, device)
                except DistillError as error:
                    by_kind[kind] = str(error)
            costs[job.name] = by_kind[kind]
    return costs


def _estimate(plan: Plan, job: Job, config: Config | SupervisedConfig, device: str) -> Cost:
    n, specs = job.n or 1, plan.table.sets | plan.table.packs
    size = config.data.size if isinstance(config, SupervisedConfig) else specs[str(job.set_name)].size
    if job.epoch_input is not None:
        path = plan.options.inputs[job.epoch_input]
        labelled = plan.table.inputs()[job.epoch_input] == LABELLED_DATA
        n, size = _count_labelled(path, size) if labelled else (count_images(path), size)
    return estimate_cost(config, n=n, size=size or DEFAULT_SIZE, device=pick_device(device))


@functools.lru_cache(64)  # several kinds of trainings read the same data
def _count_labelled(path: Path, size: int | None) -> tuple[int, int]:
    images = load_labelled(path, size, "train")
    return len(images.labels), size or images.size


def describe_cost(plan: Plan, costs: dict[str, Cost | str], out: Path, devices: list[str]) -> list[str]:
    """Return a line for the cost of each training in ``costs``, and a line for all jobs on ``devices``."""
    waiting = [job for job in plan.chosen.values() if not is_done(out, job)]
    done = len(plan.chosen) - len(waiting)
    if not waiting:
        return ["the job is done" if done == 1 else f"all {done} jobs are done"]
    measured = {name: cost for name, cost in costs.items() if isinstance(cost, Cost)}
    lines = [f"{name}: {cost}, {cost.images_per_second:,.0f} images/s" for name, cost in measured.items()]
    lines += [f"{name}: not measured: {cost}" for name, cost in costs.items() if isinstance(cost, str)]
    seconds = format_duration(sum(cost.seconds for cost in measured.values()) / len(devices))
    memory = format_bytes(max((cost.memory for cost in measured.values()), default=0))
    disk = _disk(plan, waiting, measured)
    free = shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if os.path.exists(p))).free  # noqa: PTH110
    time = f"about {seconds} and the time to build sets, start programs and evaluate"
    space = f"{format_bytes(disk)} of disk ({format_bytes(free)} are free{': too little' if disk > free else ''})"
    jobs = f"{counted(len(waiting), 'job')}, {len(costs)} of them training, on {', '.join(devices)}"
    counts = {"not measured": len(costs) - len(measured), "done": done}
    more = "".join(f"; {counted(count, 'job')} {state}" for state, count in counts.items() if count)
    return [*lines, f"{jobs}: {time}, up to {memory} of memory, {space}{more}"]


def _disk(plan: Plan, waiting: list[Job], measured: dict[str, Cost]) -> int:
    """Return the bytes on disk of the sets that will be built, of all decoded sets, and of the run directories."""
    decoded = {plan.jobs[name].set_name: cost.decoded for name, cost in measured.items()}
    built = [(job.n or 0, plan.table.sets.get(job.name.removeprefix("sets/"))) for job in waiting if not job.config]
    pixels = sum(n * ((spec.size if spec else None) or DEFAULT_SIZE) ** 2 for n, spec in built)
    return pixels * BYTES_PER_PIXEL + sum(cost.disk for cost in measured.values()) + sum(decoded.values())
