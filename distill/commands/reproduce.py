"""``distill reproduce``: run the jobs of a table, and write its page whenever one ends."""

import dataclasses
import logging
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from distill.errors import DistillError
from distill.runtime.device import pick_device, processor
from distill.tables.jobs import Job
from distill.tables.options import TableOptions, variable
from distill.tables.page import Page, html, markdown, text
from distill.tables.plan import Plan
from distill.tables.records import require_same_table, write_table_file
from distill.tables.results import collect, done_commands
from distill.tables.runner import Events, run_jobs, samples_seen
from distill.training.cost_estimate import Cost
from manifests.support.console import printable, progress_bar
from manifests.support.files import describe_os_error, hold_folder, remove_parts, write_atomically

MARKDOWN_NAME, HTML_NAME = "table.md", "table.html"
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduced:
    """The result of a table: a line for each row, the errors of failed jobs by name, and the path of the page."""

    lines: list[str]
    failed: dict[str, str]
    page: Path


def list_devices(device: str) -> list[str]:
    """Return the devices that share the work: those listed with commas; for ``auto`` every GPU, or the CPU.

    Raises:
        DistillError: a device does not exist, or is listed twice.
    """
    if device == "auto":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    named = device.split(",")
    for each in named:
        pick_device(each)
    if len(set(named)) < len(named):
        raise DistillError(f"--device {device}: names one twice")
    return named


def reproduce(plan: Plan, out: Path, devices: list[str], costs: Mapping[str, Cost]) -> Reproduced:
    """Run the chosen jobs of ``plan`` in ``out``; the page is written again whenever a job ends.

    Raises:
        DistillError: ``out`` holds something else, or cannot be written.
        KeyboardInterrupt: the user stopped it; the same call continues.
    """
    try:
        check_folder(plan, out)
        out.mkdir(parents=True, exist_ok=True)
        with hold_folder(out):
            remove_parts(out)
            write_table_file(out, plan.options)
            failed = _run(plan, out, devices, costs)
            lines = _write_page(plan, out, devices)
    except BlockingIOError as error:
        raise DistillError(f"{out}: another program is writing here; choose another --out") from error
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)} and run the same command again") from error
    return Reproduced(lines=lines, failed=failed, page=out / HTML_NAME)


def check_folder(plan: Plan, out: Path) -> None:
    """Check that ``out`` is free, or has this table; nothing is written.

    Raises:
        DistillError: it holds something else, or cannot be read.
    """
    try:
        require_same_table(out, plan.options, plan.jobs.values())
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)}; choose another --out") from error


def _run(plan: Plan, out: Path, devices: list[str], costs: Mapping[str, Cost]) -> dict[str, str]:
    ended_seconds = 0.0
    whole = max(round(sum(cost.seconds for cost in costs.values())), 1)
    with progress_bar("seconds of training, as estimated", whole) as update:

        def ended(job: Job, error: str | None) -> None:
            nonlocal ended_seconds
            ended_seconds += costs[job.name].seconds if job.name in costs else 0
            if error is not None:
                logger.info(printable(f"{job.name}: {error}"))
            _write_page(plan, out, devices)

        def waited(running: list[Job]) -> None:
            parts = [_seconds_done(job, costs[job.name], out) for job in running if job.name in costs]
            update(round(ended_seconds + sum(parts)), ", ".join(job.name for job in running))

        events = Events(started=lambda job: logger.info(printable(f"$ {job.command}")), ended=ended, waited=waited)
        return run_jobs(plan.chosen, out, devices, events)


def _seconds_done(job: Job, cost: Cost, out: Path) -> float:
    """Return the part of a training's estimated seconds that its log shows as done."""
    return min(samples_seen(out, job) / cost.images_per_second, cost.seconds)


def _write_page(plan: Plan, out: Path, devices: list[str]) -> list[str]:
    rows = collect(plan.table, plan.options, out)
    rows = [dataclasses.replace(row, state=plan.options.redact_text(row.state)) for row in rows]
    page = Page(
        table=plan.table,
        rows=rows,
        command=plan.options.command(plan.only),
        facts=_facts(plan.options, devices),
        commands=done_commands(plan.table, out),
    )
    write_atomically(out / MARKDOWN_NAME, markdown(page).encode("utf-8", "backslashreplace"))
    write_atomically(out / HTML_NAME, html(page).encode("utf-8", "backslashreplace"))
    return text(rows)


def _facts(options: TableOptions, devices: list[str]) -> list[tuple[str, str]]:
    versions = [f"distill {metadata.version('single-image-distillation')}", f"torch {torch.__version__}"]
    inputs = [
        (variable(name), _describe_input(path, options)) for name, path in sorted(options.given_paths().items())
    ]
    return [
        *inputs,
        ("versions", ", ".join([*versions, f"Python {platform.python_version()}"])),
        ("machine", ", ".join(dict.fromkeys(processor(torch.device(device)) for device in devices))),
    ]


def _describe_input(path: Path, options: TableOptions) -> str:
    """Return an input's name and SHA-256, not its path: pages are shared, and paths are private."""
    digest = options.digests.get(path)
    return path.name if digest is None else f"{path.name}, SHA-256 {digest}"
