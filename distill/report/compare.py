"""Runs side by side: a table, means over seeds, bars, and lines for a terminal."""

import dataclasses
import json
import statistics
from typing import Any

from distill.report.collect import RunRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure in percent; ``key`` is its name in ``summary.json``, where it has one."""

    name: str
    value: float
    kind: str
    key: str | None = None


def names_of(records: list[RunRecord]) -> list[str]:
    """Short and different names of runs: their folders', with as many folders above as that takes."""
    for depth in range(1, 10):
        names = ["/".join(record.folder.resolve().parts[-depth:]) for record in records]
        if len(set(names)) == len(names):
            return names
    return [str(record.folder) for record in records]


def overview(records: list[RunRecord]) -> dict[str, Any]:
    """A line for each run; mean and deviation for each group of runs that differ in nothing but their seeds."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        config = {group: dict(value) for group, value in record.config.items() if isinstance(value, dict)}
        config["train"].pop("seed", None)
        config["data"].pop("view_seed", None)
        held = (record.summary or {}).get("set_id")
        groups.setdefault(json.dumps([config, held], sort_keys=True, default=str), []).append(record)
    spreads = []
    for group in groups.values():
        top1 = [value for record in group if (value := record.figure("top1")) is not None]
        if len(top1) > 1:
            seeds = ", ".join(str(record.seed) for record in group)
            spread = {"mean": statistics.fmean(top1), "deviation": statistics.stdev(top1)}
            spreads.append({"title": group[0].title, "set": set_name(group[0]), "seeds": seeds, **spread})
    rows = [
        {"name": name, "record": record, "set": set_name(record)}
        for name, record in zip(names_of(records), records, strict=True)
    ]
    return {"rows": rows, "spreads": spreads, "bars": _bars(rows)}


def _bars(rows: list[dict[str, Any]]) -> list[Bar]:
    """Chance, every run, and the teacher where the runs share one that is not among them."""
    reached = [
        (row["name"], row["record"], value) for row in rows if (value := row["record"].figure("top1")) is not None
    ]
    if not reached:
        return []
    bars = [Bar(name="chance", value=100 / reached[0][1].num_classes, kind="chance")]
    bars += [
        Bar(name=name, value=value, kind="teacher" if each.supervised else "student") for name, each, value in reached
    ]
    teachers = {each.figure("teacher_top1") for _, each, _ in reached} - {None}
    shared = [value for value in teachers if value is not None]
    if len(shared) == 1 and not any(each.supervised for _, each, _ in reached):
        bars.append(Bar(name="teacher", value=shared[0], kind="teacher"))
    return bars


def lines(records: list[RunRecord]) -> list[str]:
    """What each run reached, as a line of text."""
    found = []
    for name, record in zip(names_of(records), records, strict=True):
        top1, seen = record.figure("top1"), record.figure("samples_seen")
        reached = "not evaluated" if top1 is None else f"top-1 {top1:.2f} %"
        state = "unfinished" if seen is None else f"{reached} after {seen:,.0f} samples"
        found.append(f"{name}: {record.title}, {set_name(record) or 'no set'}: {state}")
    return found


def set_name(record: RunRecord) -> str:
    """What a run learnt from, in a few words."""
    if record.manifest is None:
        return "labelled images" if record.supervised else ""
    sources = [source.name for source in record.manifest.sources]
    return f"{record.manifest.n:,} of {sources[0]}{f' and {len(sources) - 1} more' if sources[1:] else ''}"
