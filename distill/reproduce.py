"""Wiring of ``distill reproduce``: a table's jobs are made, priced and run, and the page is written as they end."""

import dataclasses
import json
import platform
import re
import shlex
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from distill.device import pick_device, processor
from distill.errors import DistillError, Say
from distill.estimate import Cost
from distill.table.jobs import Job, Wish
from distill.table.page import Page, html, markdown, text
from distill.table.plan import Plan
from distill.table.results import collect
from distill.table.runner import RECORDS, Events, is_done, require_same_table, run_jobs, samples_seen
from manifests.digest import file_digest
from manifests.files import describe_os_error, hold_folder, write_atomically
from manifests.terminal import progress_bar

MARKDOWN_NAME, HTML_NAME = "table.md", "table.html"


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


def reproduce(plan: Plan, out: Path, devices: list[str], costs: Mapping[str, Cost], say: Say) -> Reproduced:
    """Run the chosen jobs of ``plan`` in ``out``; the page is written anew whenever a job ends.

    Raises:
        DistillError: ``out`` is another table's or cannot be written.
        KeyboardInterrupt: the user stopped it; the same call goes on.
    """
    try:
        _require_free(out)
        out.mkdir(parents=True, exist_ok=True)
        with hold_folder(out):
            require_same_table(out, plan.jobs)
            failed = _run(plan, out, devices, costs, say)
            lines = _write_page(plan, out, devices, failed)
    except BlockingIOError as error:
        raise DistillError(f"{out}: another program is writing here; choose another --out") from error
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)} and run the same command again") from error
    return Reproduced(lines=lines, failed=failed, page=out / HTML_NAME)


def _require_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DistillError(f"{out}: is no folder; choose another --out")
    if out.exists() and not (out / RECORDS).is_dir() and any(out.iterdir()):
        raise DistillError(f"{out}: is not empty, and no table was begun there; choose another --out")


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
            _write_page(plan, out, devices, failed)

        def passed(running: list[Job]) -> None:
            parts = [_seconds_done(job, costs[job.name], out) for job in running if job.name in costs]
            update(round(ended_seconds + sum(parts)), ", ".join(job.name for job in running))

        events = Events(began=lambda job: say(f"$ {job.command}"), ended=ended, passed=passed)
        return run_jobs(plan.chosen, out, devices, events)


def _seconds_done(job: Job, cost: Cost, out: Path) -> float:
    """Of a training's estimated time, that for the samples it has seen."""
    return min(samples_seen(out, job) / cost.images_per_second, cost.seconds)


def _write_page(plan: Plan, out: Path, devices: list[str], failed: Mapping[str, str]) -> list[str]:
    said = {name: _without_paths(wrong, plan.wish) for name, wrong in failed.items()}
    lines = collect(plan.table, plan.wish, plan.jobs, said, out)
    done = [job for job in plan.jobs.values() if is_done(out, job)]
    page = Page(
        table=plan.table,
        lines=lines,
        command=_command(plan.wish),
        facts=_facts(plan.wish, devices),
        commands=[_portable(job, plan.wish) for job in done],
    )
    write_atomically(out / MARKDOWN_NAME, markdown(page).encode())
    write_atomically(out / HTML_NAME, html(page).encode())
    return text(lines)


def _facts(wish: Wish, devices: list[str]) -> list[tuple[str, str]]:
    versions = [f"distill {metadata.version('single-image-distillation')}", f"torch {torch.__version__}"]
    inputs = [(f"input {name}", _describe_input(path)) for name, path in sorted(_given(wish).items())]
    return [
        *inputs,
        ("versions", ", ".join([*versions, f"Python {platform.python_version()}"])),
        ("machine", ", ".join(dict.fromkeys(processor(torch.device(device)) for device in devices))),
    ]


def _given(wish: Wish) -> dict[str, Path]:
    return {**wish.inputs, **wish.teachers}


def _command(wish: Wish) -> str:
    """The command that makes the whole table."""
    words = ["distill", "reproduce", wish.name]
    for option, paths in (("--input", wish.inputs), ("--teacher", wish.teachers)):
        words += [word for name in paths for word in (option, f"{name}={_variable(name)}")]
    for option, value, usual in (
        ("--scale", f"{wish.scale:g}", "1"),
        ("--teacher-scale", f"{wish.teacher_scale:g}", f"{wish.scale:g}"),
        ("--variant", wish.variant or "", ""),
        ("--seeds", ",".join(map(str, wish.seeds)), "0"),
    ):
        words += [option, value] if value != usual else []
    for option, settings in (("--set", wish.settings), ("--teacher-set", wish.teacher_settings)):
        for key, value in settings.items():
            words += [option, shlex.quote(f"{key}={value if isinstance(value, str) else json.dumps(value)}")]
    return " ".join(words)


def _describe_input(path: Path) -> str:
    """A file's name and SHA-256, or a folder's name: a page is mailed, and paths tell of its writer's machine."""
    return f"{path.name}, SHA-256 {file_digest(path)}" if path.is_file() else path.name


def _portable(job: Job, wish: Wish) -> str:
    """A job's command with inputs as variables and other files by their names alone: a page is mailed."""
    variables = {str(path): _variable(name) for name, path in _given(wish).items()}
    words = (word if not Path(word).is_absolute() or word in variables else Path(word).name for word in job.argv)
    return " ".join(variables.get(word) or shlex.quote(word) for word in words)


def _without_paths(text: str, wish: Wish) -> str:
    """What a program said, with inputs as variables."""
    for name, path in _given(wish).items():
        text = text.replace(str(path), _variable(name))
    return text


def _variable(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.upper())
