"""Wiring of ``distill reproduce``: a table's jobs are made, priced and run, and the page is written as they end."""

import dataclasses
import platform
import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import torch

from distill.config import Config, SupervisedConfig
from distill.data.labelled import load_labelled
from distill.device import pick_device, processor
from distill.errors import DistillError, Say
from distill.estimate import Cost, duration, size_of
from distill.run import estimate_run
from distill.table.jobs import Job, Wish, check_wish, jobs_of, make_jobs, missing, with_needs
from distill.table.page import Page, html, markdown, text
from distill.table.results import collect
from distill.table.runner import Events, is_done, require_same_table, run_jobs, samples_seen
from distill.table.schema import DATA, Table
from distill.teach import estimate_teaching
from manifests.digest import file_digest
from manifests.files import describe_os_error, hold_folder, write_atomically
from manifests.terminal import progress_bar

MARKDOWN_NAME, HTML_NAME = "table.md", "table.html"
USUAL_SIZE = 32
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".bmp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduced:
    """What came of a table: what each row reached, a line each; what went wrong, by job; and where the page is."""

    lines: list[str]
    failed: dict[str, str]
    page: Path


def list_devices(device: str) -> list[str]:
    """The devices that share the work: those named with commas; for ``auto`` every GPU, or the CPU.

    Raises:
        DistillError: one is not there.
    """
    if device == "auto":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    named = device.split(",")
    for each in named:
        pick_device(each)
    if len(set(named)) < len(named):
        raise DistillError(f"--device {device}: names one twice")
    return named


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A table, what was wished of it, all ``jobs`` this allows, and the ``chosen``; ``skipped`` rows lack options."""

    table: Table
    wish: Wish
    jobs: dict[str, Job]
    chosen: dict[str, Job]
    skipped: dict[str, list[str]]


def make_plan(table: Table, wish: Wish, only: tuple[str, ...]) -> Plan:
    """The jobs of the rows whose run or network matches one of the patterns ``only``, or of all rows.

    Raises:
        DistillError: something was named that is not there, a config is wrong, or nothing is left to run.
    """
    check_wish(table, wish)
    rows = [row for row in table.rows if not only or any(fnmatch(row.of, pattern) for pattern in only)]
    if not rows:
        names = ", ".join(sorted({row.of for row in table.rows}))
        raise DistillError(f"--only {' '.join(only)}: matches no row; rows are of {names}")
    lacks = {row.of: missing(table, wish, row.of) for row in rows}
    jobs = make_jobs(table, wish)
    able = [name for row in rows if not lacks[row.of] for name in jobs_of(table, wish, row)]
    if not able:
        needed = ", ".join(f"{name} ({what})" for name, what in sorted(table.inputs().items()))
        raise DistillError(f"no row can be run: give --input NAME=PATH for {needed}")
    skipped = {of: options for of, options in lacks.items() if options}
    return Plan(table=table, wish=wish, jobs=jobs, chosen=with_needs(jobs, able), skipped=skipped)


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
                measured[key] = _price(plan, job, counts, pick_device(device))
            found[job.name] = measured[key]
    return found


def _kind(job: Job) -> str:
    """What the cost of a training depends on: all of its config but the seed, and how much an epoch is."""
    config = job.config.model_dump(mode="json") if job.config else {}
    config["train"].pop("seed")
    config.pop("paper", None)
    return f"{config} {job.n} {job.epoch_of} {[need for need in job.needs if need.startswith('sets/')]}"


def _price(plan: Plan, job: Job, counts: dict[str, tuple[int, int]], device: torch.device) -> Cost:
    if isinstance(job.config, SupervisedConfig):
        n, size = _count(plan, job.epoch_of or "", counts)
        return estimate_teaching(job.config, n, job.config.data.size or size, device)
    assert isinstance(job.config, Config)  # noqa: S101 - the only other kind
    if job.epoch_of is not None:
        n, size = _count(plan, job.epoch_of, counts)
        return estimate_run(job.config, n, size, device)
    name = job.needs[0].removeprefix("sets/")
    return estimate_run(job.config, job.n or 1, plan.table.sets[name].size or USUAL_SIZE, device)


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
    disk, memory = sum(c.disk for c in costs.values()), max((c.memory for c in costs.values()), default=0)
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


def reproduce(plan: Plan, out: Path, devices: list[str], costs: Mapping[str, Cost], say: Say) -> Reproduced:
    """Run the chosen jobs of ``plan`` in ``out``; the page is written anew whenever a job ends.

    Raises:
        DistillError: ``out`` is another table's or cannot be written.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with hold_folder(out):
            require_same_table(out, plan.jobs)
            failed = _run(plan, out, devices, costs, say)
            lines = _write_page(plan, out, failed, costs)
    except BlockingIOError as error:
        raise DistillError(f"{out}: another program is writing here; choose another --out") from error
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)} and run the same command again") from error
    return Reproduced(lines=lines, failed=failed, page=out / HTML_NAME)


def _run(plan: Plan, out: Path, devices: list[str], costs: Mapping[str, Cost], say: Say) -> dict[str, str]:
    failed: dict[str, str] = {}
    ended_seconds = 0.0
    with progress_bar(
        "seconds of work, as estimated", max(round(sum(c.seconds for c in costs.values())), 1)
    ) as update:

        def ended(job: Job, wrong: str | None) -> None:
            nonlocal ended_seconds
            ended_seconds += costs[job.name].seconds if job.name in costs else 0
            if wrong is not None:
                failed[job.name] = wrong
                say(f"{job.name}: {wrong}")
            _write_page(plan, out, failed, costs)

        def passed(running: list[Job]) -> None:
            parts = [_seconds_done(job, costs[job.name], out) for job in running if job.name in costs]
            update(round(ended_seconds + sum(parts)), ", ".join(job.name for job in running))

        events = Events(began=lambda job: say(f"$ {job.command}"), ended=ended, passed=passed)
        return run_jobs(plan.chosen, out, devices, events)


def _seconds_done(job: Job, cost: Cost, out: Path) -> float:
    """Of a training's estimated time, that for the samples it has seen."""
    return min(samples_seen(out, job) / cost.images_per_second, cost.seconds)


def _write_page(plan: Plan, out: Path, failed: Mapping[str, str], costs: Mapping[str, Cost]) -> list[str]:
    lines = collect(plan.table, plan.wish, plan.jobs, failed, out)
    done = [job for job in plan.jobs.values() if is_done(out, job)]
    page = Page(
        table=plan.table,
        lines=lines,
        facts=_facts(plan, costs),
        commands=[_without_paths(job.command, plan.wish) for job in done],
    )
    write_atomically(out / MARKDOWN_NAME, markdown(page).encode())
    write_atomically(out / HTML_NAME, html(page).encode())
    return text(lines)


def _facts(plan: Plan, costs: Mapping[str, Cost]) -> list[tuple[str, str]]:
    wish = plan.wish
    versions = [f"distill {metadata.version('single-image-distillation')}", f"torch {torch.__version__}"]
    facts = [
        ("scale", f"{wish.scale:g} of the full length; networks {wish.teacher_scale:g}"),
        ("seeds", ", ".join(str(seed) for seed in wish.seeds)),
        *((f"{name}", _describe_input(path)) for name, path in sorted({**wish.inputs, **wish.teachers}.items())),
    ]
    for label, settings in (("settings", wish.settings), ("settings of networks", wish.teacher_settings)):
        facts += [(label, ", ".join(f"{key}={value}" for key, value in settings.items()))] if settings else []
    facts += [("versions", ", ".join([*versions, f"Python {platform.python_version()}"]))]
    return [*facts, ("machine", f"{processor(torch.device('cpu'))}, {torch.get_num_threads()} threads")]


def _describe_input(path: Path) -> str:
    """A file's name and SHA-256, or a folder's name: a page is mailed, and paths tell of its writer's machine."""
    return f"{path.name}, SHA-256 {file_digest(path)}" if path.is_file() else path.name


def _without_paths(command: str, wish: Wish) -> str:
    """A command with the names of inputs, as variables, in place of their paths."""
    for name, path in {**wish.inputs, **wish.teachers}.items():
        command = command.replace(str(path), "$" + re.sub(r"\W", "_", name.upper()))
    return command
