"""``distill reproduce``: run the jobs of a table, and write the page of the table whenever a job ends."""

import dataclasses
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from distill.config.schema import Config
from distill.errors import DistillError
from distill.runtime.device import pick_device, processor
from distill.tables.jobs import Job
from distill.tables.options import TableOptions, variable
from distill.tables.page import Page, render, text
from distill.tables.plan import Plan
from distill.tables.records import require_same_table, write_table_file
from distill.tables.results import done_commands, row_result
from distill.tables.runner import run_jobs, samples_seen
from distill.targets.teacher import load_teacher
from distill.training.cost_estimate import Cost
from distill.training.run_dir import explain_errors, own_folder
from manifests.support.console import progress_bar
from manifests.support.files import write_atomically

MARKDOWN_NAME, HTML_NAME = "table.md", "table.html"


def list_devices(device: str) -> list[str]:
    """Return the devices in ``device``, such as ``cuda:0,cuda:1``. For ``auto``, return all GPUs, or else the CPU."""
    if device == "auto":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    named = device.split(",")
    for each in named:
        pick_device(each)
    if len(set(named)) < len(named):
        raise DistillError(f"--device {device}: names a device twice; name each device once")
    return named


def reproduce(
    plan: Plan, out: Path, devices: list[str], costs: Mapping[str, Cost]
) -> tuple[list[str], dict[str, str]]:
    """Run the chosen jobs of ``plan`` in the folder ``out``, which ``check_start`` accepted.

    Return a line for each selected row, and the errors of failed jobs by job name. ``costs`` are estimates for the
    progress bar, by job name. After a KeyboardInterrupt, the same call continues the jobs.
    """
    with own_folder(out, "run the same command again"):
        write_table_file(out, plan.options)
        failed = _run(plan, out, devices, costs)
        return _write_page(plan, out, devices), failed


def check_start(plan: Plan, out: Path) -> None:
    """Check that ``out`` is empty or contains this table, and that the chosen runs can load the --teacher files."""
    with explain_errors(out, "run the same command again, or choose another --out"):
        require_same_table(out, plan.options, plan.jobs.values())
    runs = {job.run: job.config.teacher for job in plan.chosen.values() if job.run and isinstance(job.config, Config)}
    for run, teacher in runs.items():
        name = plan.table.runs[run].teacher
        if name in plan.options.teachers:
            file = plan.options.teachers[name]
            try:
                load_teacher(teacher.model_copy(update={"weights": file}), torch.device("cpu"))
            except DistillError as error:
                found = f"run {run} of the table cannot use this file: {error}"
                raise DistillError(f"--teacher {name}={file}: {found}") from error


def _run(plan: Plan, out: Path, devices: list[str], costs: Mapping[str, Cost]) -> dict[str, str]:
    ended_seconds = 0.0
    samples_since: dict[tuple[str, int], float] = {}  # when a job's log first had this number of samples
    whole = max(round(sum(cost.seconds for cost in costs.values())), 1)
    with progress_bar("estimated seconds of training", whole) as update:

        def ended(job: Job) -> None:
            nonlocal ended_seconds
            ended_seconds += costs[job.name].seconds if job.name in costs else 0
            _write_page(plan, out, devices)

        def tick(running: list[Job]) -> None:
            seconds, now = ended_seconds, time.monotonic()
            for job, cost in [(job, costs[job.name]) for job in running if job.name in costs]:
                samples = samples_seen(out, job)
                logged = samples_since.setdefault((job.name, samples), now)
                seconds += min(samples / cost.images_per_second + now - logged, cost.seconds)
            update(round(seconds), ", ".join(job.name for job in running))

        return run_jobs(plan.chosen, out, devices, ended=ended, tick=tick)


def _write_page(plan: Plan, out: Path, devices: list[str]) -> list[str]:
    rows = [row_result(plan.table, plan.options, row, out) for row in plan.table.rows]
    rows = [dataclasses.replace(row, state=plan.options.redact_text(row.state)) for row in rows]
    facts, commands = _facts(plan.options, devices), done_commands(plan.table, out)
    page = Page(table=plan.table, rows=rows, command=plan.options.command(plan.only), facts=facts, commands=commands)
    for name in (MARKDOWN_NAME, HTML_NAME):
        write_atomically(out / name, render(page, f"{name}.j2").encode("utf-8", "backslashreplace"))
    return text(result for row, result in zip(plan.table.rows, rows, strict=True) if row in plan.rows)


def _facts(options: TableOptions, devices: list[str]) -> list[tuple[str, str]]:
    """Return pairs of label and text for a page: inputs without folders (pages are public), versions, and machine."""
    given, distill = sorted(options.given_paths().items()), metadata.version("single-image-distillation")
    return [
        *((variable(name), f"{path.name}, SHA-256 {options.digests[path]}") for name, path in given),
        ("versions", f"distill {distill}, torch {torch.__version__}, Python {platform.python_version()}"),
        ("machine", ", ".join(dict.fromkeys(processor(torch.device(device)) for device in devices))),
    ]
