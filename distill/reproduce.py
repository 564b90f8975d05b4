"""Wiring of ``distill reproduce``: a table's jobs are made, priced and run, and the page is written as they end."""

import dataclasses
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
from distill.table.jobs import Job, Plan, Wish
from distill.table.page import Page, html, markdown, text
from distill.table.results import collect
from distill.table.runner import Events, is_done, require_same_table, run_jobs, samples_seen
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
    said = {name: _without_paths(wrong, plan.wish) for name, wrong in failed.items()}
    lines = collect(plan.table, plan.wish, plan.jobs, said, out)
    done = [job for job in plan.jobs.values() if is_done(out, job)]
    page = Page(
        table=plan.table,
        lines=lines,
        facts=_facts(plan, costs),
        commands=[_portable(job, plan.wish) for job in done],
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


def _portable(job: Job, wish: Wish) -> str:
    """A job's command with inputs as variables and other files by their names alone: a page is mailed."""
    variables = {str(path): _variable(name) for name, path in {**wish.inputs, **wish.teachers}.items()}
    words = (word if not Path(word).is_absolute() or word in variables else Path(word).name for word in job.argv)
    return " ".join(variables.get(word) or shlex.quote(word) for word in words)


def _without_paths(text: str, wish: Wish) -> str:
    """What a program said, with inputs as variables."""
    for name, path in {**wish.inputs, **wish.teachers}.items():
        text = text.replace(str(path), _variable(name))
    return text


def _variable(name: str) -> str:
    return "$" + re.sub(r"\W", "_", name.upper())
