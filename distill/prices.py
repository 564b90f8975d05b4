"""Wiring: what the jobs of a table would cost here, each kind of them measured for a moment."""

import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from distill.config import Config, SupervisedConfig
from distill.data.labelled import load_labelled
from distill.device import pick_device
from distill.errors import DistillError
from distill.estimate import Cost, duration, size_of
from distill.run import estimate_run
from distill.table.jobs import Job
from distill.table.plan import Plan
from distill.table.runner import is_done
from distill.table.schema import DATA
from distill.teach import estimate_teaching
from manifests.terminal import progress_bar

USUAL_SIZE = 32
FEW_PATCHES = 1000
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
    kinds: dict[tuple[str, ...], tuple[float, float]] = {}
    for job in waiting:
        if job.n is None or job.needs:
            total = dataclasses.replace(total, unknown=total.unknown + 1)
            continue
        kind = job.argv[: job.argv.index("--n")] + job.argv[job.argv.index("--n") + 2 : job.argv.index("--out")]
        if kind not in kinds:
            kinds[kind] = _a_patch(kind)
        seconds, disk = kinds[kind]
        total = dataclasses.replace(
            total, seconds=total.seconds + seconds * job.n, disk=total.disk + round(disk * job.n)
        )
    return total


def _a_patch(argv: tuple[str, ...]) -> tuple[float, float]:
    """Seconds and bytes a patch: what a thousand take more than one, or zeros where they cannot be built."""
    found = []
    for n in (1, FEW_PATCHES):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", *argv, "--n", str(n), "--out", f"{folder}/set"]
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
            if done.returncode != 0:
                return 0.0, 0.0  # the job itself will say why
            size = sum(file.stat().st_size for file in Path(folder, "set").iterdir())
            found.append((time.perf_counter() - started, size))
    (short, small), (long, large) = found
    return max(long - short, 0) / (FEW_PATCHES - 1), max(large - small, 0) / (FEW_PATCHES - 1)


def describe_cost(plan: Plan, costs: Mapping[str, Cost], making: Making, out: Path, devices: list[str]) -> list[str]:
    """What the chosen jobs would cost, in lines: each training, and all."""
    done = sum(is_done(out, job) for job in plan.chosen.values())
    if done == len(plan.chosen):
        return [f"all {done} jobs are done"]
    seconds = making.seconds + sum(cost.seconds for cost in costs.values()) / len(devices)
    decoded = {set_of(plan.jobs[name]): cost.decoded for name, cost in costs.items()}
    disk = making.disk + sum(cost.disk for cost in costs.values()) + sum(decoded.values())
    memory = max((cost.memory for cost in costs.values()), default=0)
    free = shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if p.exists())).free
    lines = [f"{name}: {cost}, {cost.images_per_second:,.0f} images/s" for name, cost in costs.items()]
    lines.append(
        f"{len(plan.chosen) - done} jobs, {len(costs)} of them trainings, on {', '.join(devices)}: about "
        f"{duration(seconds)}, up to {size_of(memory)} of memory, {size_of(disk)} of disk "
        f"({size_of(free)} are free{': too little' if disk > free else ''})"
        + (f"; {making.unknown} images and sets are not in it" if making.unknown else "")
        + (f"; {done} jobs are done" if done else "")
    )
    return lines
