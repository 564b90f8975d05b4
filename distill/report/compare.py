"""Compare several runs: a table, means over seeds, bars, and lines of text for the terminal."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from distill.report.collect import RunRecord
from distill.training import run_identity
from distill.training.seeds import SEED_FOLDER
from manifests.support.counts import counted


class Bar(NamedTuple):
    """A bar in a bar chart of accuracies."""

    name: str
    value: float  # in percent
    kind: str  # "chance", "student", "teacher" or "paper"
    key: str | None = None  # the key of the figure in ``summary.json``


def unique_names(records: list[RunRecord]) -> list[str]:
    """Return a unique name for each run: the name of its folder, with parent folders if necessary.

    The name of a run in a folder such as ``seed0`` always includes the name of the parent folder.
    """
    paths = [record.folder.resolve() for record in records]
    for depth in range(1, 10):
        depths = (depth + bool(SEED_FOLDER.fullmatch(path.name)) for path in paths)
        names = ["/".join(path.parts[-more:]) for path, more in zip(paths, depths, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [str(record.folder) for record in records]


def overview(records: list[RunRecord]) -> dict[str, Any]:
    """Return the data of a page's first section: runs with names, means over seeds, bars of the chart, notes."""
    runs = list(zip(unique_names(records), records, strict=True))
    return {"runs": runs, "spreads": _spreads(records), "bars": _bars(runs), "notes": _notes(records)}


def _spreads(records: list[RunRecord]) -> list[dict[str, Any]]:
    """Return mean and deviation of the top-1 of each group of runs that differ only in their seed."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.figure("top1") is not None:
            groups.setdefault(json.dumps(record.identity(), sort_keys=True), []).append(record)
    spreads = []
    for runs in groups.values():
        distinct = {(run.config.train.seed, run.figure("sha256") or run.folder): run for run in runs}  # ignore copies
        group = list(distinct.values())
        if len(group) > 1 and why_no_mean(group) is None:
            top1 = [run.figure("top1") for run in group]
            seeds = ", ".join(str(run.config.train.seed) for run in group)
            spread = {"mean": statistics.fmean(top1), "deviation": statistics.stdev(top1), "seeds": seeds}
            spreads.append({"run": group[0], **spread})
    return spreads


def why_no_mean(runs: list[RunRecord]) -> str | None:
    """Return the reason why no mean of ``runs`` can be computed; None if a mean can be computed."""
    identities = dict(zip(unique_names(runs), (run.identity() for run in runs), strict=True))
    return run_identity.why_no_mean(identities, supervised=any(run.supervised for run in runs))


def _notes(records: list[RunRecord]) -> list[str]:
    """Return sentences about runs that cannot be compared and about seeds that have no mean."""
    evaluated = [record for record in records if record.figure("top1") is not None]
    notes = []
    if len({record.figure("eval_sha256") for record in evaluated} - {None}) > 1:
        notes.append("The runs were measured on different evaluation data: do not compare them.")
    folders: dict[Path, list[RunRecord]] = {}
    for record in evaluated:
        path = record.folder.resolve()
        if SEED_FOLDER.fullmatch(path.name):
            folders.setdefault(path.parent, []).append(record)
    reasons = {folder: why_no_mean(runs) for folder, runs in folders.items()}
    return notes + [f"The seeds of {path.name} have no mean: {why}." for path, why in reasons.items() if why]


def _bars(named: list[tuple[str, RunRecord]]) -> list[Bar]:
    """Return a bar for each evaluated run, and for chance and teacher if these values are equal for all runs."""
    evaluated = [(name, run) for name, run in named if run.figure("top1") is not None]
    records = [run for _, run in evaluated]
    chance, teacher = common_value(100 / run.num_classes for run in records), common_teacher(records)
    bars = [] if chance is None else [Bar("chance", chance, "chance")]
    bars += [Bar(name, run.figure("top1"), "teacher" if run.supervised else "student") for name, run in evaluated]
    if teacher is not None and not any(run.supervised for run in records):
        bars.append(Bar("teacher", teacher, "teacher"))
    return bars


def common_value(values: Iterable[float]) -> float | None:
    """Return the common value of ``values``; None if the values differ or ``values`` is empty."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def common_teacher(records: list[RunRecord]) -> float | None:
    """Return the teacher's top-1 in percent if it is equal for all runs with a teacher, else None."""
    return common_value(top1 for record in records if (top1 := record.figure("teacher_top1")) is not None)


def text_lines(records: list[RunRecord]) -> list[str]:
    """Return a line of text with the result of each run, and then the notes about the runs as lines."""
    lines = []
    for name, record in zip(unique_names(records), records, strict=True):
        top1, seen = record.figure("top1"), record.figure("samples_seen")
        state = "not evaluated" if top1 is None else f"top-1 {top1:.2f} %"
        for set_name in record.evaluations:
            if (figure := record.set_top1(set_name)) is not None:
                state += f", {set_name} {figure:.2f} %"
        state += f" after {counted(seen, 'sample', ',')}" if seen else ""
        state = "unfinished" if record.summary is None else state
        lines.append(f"{name}: {record.title}, {record.set_name or 'no set'}: {state}")
    return [*lines, *_notes(records)]
