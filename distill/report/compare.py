"""Runs side by side: a table, means over seeds, bars, and lines for a terminal."""

import dataclasses
import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill.report.collect import RunRecord
from distill.training.provenance import no_mean
from manifests.support.counts import counted

_SEED_FOLDER = re.compile(r"seed\d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure in percent; ``key`` is its name in ``summary.json``, where it has one."""

    name: str
    value: float
    kind: str
    key: str | None = None


def names_of(records: list[RunRecord]) -> list[str]:
    """Short and different names of runs: their folders', with as many folders above as that takes.

    One of several seeds has the name of the folder above as well.
    """
    paths = [record.folder.resolve() for record in records]
    for depth in range(1, 10):
        depths = (depth + bool(_SEED_FOLDER.fullmatch(path.name)) for path in paths)
        names = ["/".join(path.parts[-more:]) for path, more in zip(paths, depths, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [str(record.folder) for record in records]


def overview(records: list[RunRecord]) -> dict[str, Any]:
    """A line for each run, a bar for each, and mean and deviation of those that differ in nothing but their seeds."""
    rows = [
        {
            "number": number,
            "name": name,
            "record": record,
            "set": set_name(record),
            "curve": bool(record.series(f"{record.prefix}top1")),
        }
        for number, (name, record) in enumerate(zip(names_of(records), records, strict=True))
    ]
    notes = [*other_data(records), *without_mean(records)]
    return {"rows": rows, "spreads": _spreads(records), "bars": _bars(rows), "notes": notes}


def _spreads(records: list[RunRecord]) -> list[dict[str, Any]]:
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.figure("top1") is not None:
            groups.setdefault(json.dumps(record.origin(), sort_keys=True), []).append(record)
    spreads = []
    for runs in groups.values():
        group = _once(runs)
        if len(group) > 1 and no_mean(_origins(group), supervised=group[0].supervised) is None:
            top1 = [record.figure("top1") for record in group]
            seeds = ", ".join(str(record.seed) for record in group)
            spread = {"mean": statistics.fmean(top1), "deviation": statistics.stdev(top1)}
            spreads.append({"title": group[0].title, "set": set_name(group[0]), "seeds": seeds, **spread})
    return spreads


def _once(runs: list[RunRecord]) -> list[RunRecord]:
    """Runs without copies."""
    return list({(run.seed, run.figure("sha256") or run.folder): run for run in runs}.values())


def _origins(runs: list[RunRecord]) -> dict[str, dict[str, Any]]:
    return dict(zip(names_of(runs), (run.origin() for run in runs), strict=True))


def without_mean(records: list[RunRecord]) -> list[str]:
    """Of seeds that lie in one folder and have no mean, why; a sentence for each folder."""
    folders: dict[Path, list[RunRecord]] = {}
    for record in records:
        path = record.folder.resolve()
        if _SEED_FOLDER.fullmatch(path.name) and record.figure("top1") is not None:
            folders.setdefault(path.parent, []).append(record)
    reasons = {folder: no_mean(_origins(runs), supervised=runs[0].supervised) for folder, runs in folders.items()}
    return [f"The seeds of {folder.name} have no mean. {reason}" for folder, reason in reasons.items() if reason]


def other_data(records: list[RunRecord]) -> list[str]:
    """A sentence where runs were measured on different evaluation data, so that their figures do not compare."""
    measured = {record.figure("eval_sha256") for record in records if record.figure("top1") is not None} - {None}
    return ["The runs were measured on different evaluation data: do not compare them."] if len(measured) > 1 else []


def _bars(rows: list[dict[str, Any]]) -> list[Bar]:
    """Chance where it is one for all, every run, and the teacher where the runs share one that is not among them."""
    reached = [(row["name"], row["record"]) for row in rows if row["record"].figure("top1") is not None]
    records = [record for _, record in reached]
    chance, teacher = shared(100 / record.num_classes for record in records), shared_teacher(records)
    bars = [] if chance is None else [Bar(name="chance", value=chance, kind="chance")]
    for name, record in reached:
        kind = "teacher" if record.supervised else "student"
        bars.append(Bar(name=name, value=record.figure("top1"), kind=kind))
    if teacher is not None and not any(record.supervised for record in records):
        bars.append(Bar(name="teacher", value=teacher, kind="teacher"))
    return bars


def shared(values: Iterable[float]) -> float | None:
    """The value that all are; None where they differ or there are none."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def shared_teacher(records: list[RunRecord]) -> float | None:
    """The teacher's top-1, where all runs that have a teacher agree on it."""
    measured = [top1 for record in records if (top1 := record.figure("teacher_top1")) is not None]
    return shared(measured)


def lines(records: list[RunRecord]) -> list[str]:
    """What each run reached, as a line of text; and what keeps them from being compared."""
    found = []
    for name, record in zip(names_of(records), records, strict=True):
        top1, seen = record.figure("top1"), record.figure("samples_seen")
        reached = "not evaluated" if top1 is None else f"top-1 {top1:.2f} %"
        state = (
            "unfinished"
            if record.summary is None
            else reached + (f" after {counted(seen, 'sample', ',')}" if seen else "")
        )
        found.append(f"{name}: {record.title}, {set_name(record) or 'no set'}: {state}")
    return [*found, *other_data(records), *without_mean(records)]


def set_name(record: RunRecord) -> str:
    """What a run learnt from, in a few words."""
    if record.manifest is None:
        return "labelled images" if record.supervised else ""
    sources = [source.name for source in record.manifest.sources]
    return f"{record.manifest.n:,} of {sources[0]}{f' and {len(sources) - 1} more' if sources[1:] else ''}"
