"""Wiring: what the jobs of a table would cost here, each kind of them measured for a moment."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from distill.config.schema import Config, SupervisedConfig
from distill.data.labelled import count_images, load_labelled
from distill.errors import DistillError
from distill.runtime.device import pick_device
from distill.tables.jobs import Job
from distill.tables.plan import Plan
from distill.tables.records import is_done
from distill.tables.schema import DATA
from distill.training.cost_estimate import Cost, duration, estimate_cost, size_of
from manifests.support.console import progress_bar
from manifests.support.counts import counted

USUAL_SIZE = 32
FEW_PATCHES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices:
    """What trainings would cost, by job, and why others could not be measured."""

    costs: dict[str, Cost]
    unknown: dict[str, str]


def prices(plan: Plan, out: Path, device: str) -> Prices:
    """What each chosen training that has not ended would cost on ``device``; each kind is measured.

    What cannot be measured is no error here: the job itself will say what is wrong.
    """
    waiting = [job for job in plan.chosen.values() if job.config is not None and not is_done(out, job)]
    counts: dict[str, tuple[int, int]] = {}
    measured: dict[str, Cost | DistillError] = {}
    found = Prices(costs={}, unknown={})
    with progress_bar("measuring what it costs", len(waiting)) as update:
        for number, job in enumerate(waiting):
            update(number, job.name)
            key = _kind(job)
            if key not in measured:
                try:
                    measured[key] = _price(plan, job, counts, pick_device(device))
                except DistillError as error:
                    measured[key] = error
            cost = measured[key]
            if isinstance(cost, Cost):
                found.costs[job.name] = cost
            else:
                found.unknown[job.name] = str(cost)
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
        n, size = _count(plan, job.epoch_of or "", job.config.data.size, counts)
        return estimate_cost(job.config, n=n, size=size, device=device)
    if not isinstance(job.config, Config):
        raise TypeError(f"{job.name} is no training")
    name = str(set_of(job)).removeprefix("sets/")
    if job.epoch_of is not None:
        n, size = _count(plan, job.epoch_of, plan.table.packs[name].size, counts)
        return estimate_cost(job.config, n=n, size=size, device=device)
    size = plan.table.sets[name].size or USUAL_SIZE
    return estimate_cost(job.config, n=job.n or 1, size=size, device=device)


def _count(plan: Plan, name: str, size: int | None, counts: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """How many training images an input has, and their size in pixels."""
    path = plan.wish.inputs[name]
    if name in counts:
        n, own = counts[name]
    elif plan.table.inputs()[name] == DATA:
        images = load_labelled(path, size, "train")
        n, own = len(images.labels), images.size
    else:
        n, own = count_images(path), USUAL_SIZE
    counts[name] = n, own
    return n, size or own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """What sets that are to be built would cost: ``seconds`` and bytes of ``disk``; ``unknown`` are not measured."""

    seconds: float = 0.0
    disk: int = 0
    unknown: int = 0


def price_of_sets(plan: Plan, out: Path) -> Making:
    """Build a few patches as each chosen set that is not there would have them, in a folder that is then removed.

    What is made of images that are not there yet, or packed, is not measured.
    """
    waiting = [job for job in plan.chosen.values() if job.config is None and not is_done(out, job)]
    total = Making()
    kinds: dict[tuple[str, ...], tuple[float, float] | None] = {}
    for job in waiting:
        if job.n is None or job.needs:
            total = dataclasses.replace(total, unknown=total.unknown + 1)
            continue
        kind = job.argv[: job.argv.index("--n")] + job.argv[job.argv.index("--n") + 2 : job.argv.index("--out")]
        if kind not in kinds:
            kinds[kind] = _a_patch(kind)
        if kinds[kind] is None:
            total = dataclasses.replace(total, unknown=total.unknown + 1)
            continue
        seconds, disk = kinds[kind] or (0.0, 0.0)
        total = dataclasses.replace(
            total, seconds=total.seconds + seconds * job.n, disk=total.disk + round(disk * job.n)
        )
    return total


def _a_patch(argv: tuple[str, ...]) -> tuple[float, float] | None:
    """Seconds and bytes a patch: what a thousand take more than one, or None where they cannot be built."""
    found = []
    for n in (1, FEW_PATCHES):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", *argv, "--n", str(n), "--out", f"{folder}/set"]
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
            if done.returncode != 0:
                return None  # the job itself will say why
            size = sum(file.stat().st_size for file in Path(folder, "set").iterdir())
            found.append((time.perf_counter() - started, size))
    (short, small), (long, large) = found
    return max(long - short, 0) / (FEW_PATCHES - 1), max(large - small, 0) / (FEW_PATCHES - 1)


def describe_cost(plan: Plan, found: Prices, making: Making, out: Path, devices: list[str]) -> list[str]:
    """What the chosen jobs would cost, in lines: each training, and all."""
    costs = found.costs
    done = sum(is_done(out, job) for job in plan.chosen.values())
    if done == len(plan.chosen):
        return ["the job is done" if done == 1 else f"all {done} jobs are done"]
    seconds = making.seconds + sum(cost.seconds for cost in costs.values()) / len(devices)
    decoded = {set_of(plan.jobs[name]): cost.decoded for name, cost in costs.items()}
    disk = making.disk + sum(cost.disk for cost in costs.values()) + sum(decoded.values())
    memory = max((cost.memory for cost in costs.values()), default=0)
    free = shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if os.path.exists(p))).free  # noqa: PTH110
    lines = [f"{name}: {cost}, {cost.images_per_second:,.0f} images/s" for name, cost in costs.items()]
    lines += [f"{name}: not measured: {why}" for name, why in found.unknown.items()]
    trainings, unknown = len(costs) + len(found.unknown), len(found.unknown) + making.unknown
    lines.append(
        f"{counted(len(plan.chosen) - done, 'job')}, {trainings} of them training, on {', '.join(devices)}: about "
        f"{duration(seconds)} and what programs take to start and to evaluate, up to {size_of(memory)} of memory, "
        f"{size_of(disk)} of disk ({size_of(free)} are free{': too little' if disk > free else ''})"
        + (f"; {counted(unknown, 'job')} not measured" if unknown else "")
        + (f"; {counted(done, 'job')} done" if done else "")
    )
    return lines
