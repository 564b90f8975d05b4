"""What stands in a report: every text and number of it, ready for the template."""

import json
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from distill.report.chart import line_chart, short
from distill.report.collect import RunRecord
from distill.report.compare import Bar, names_of, overview
from distill.report.pictures import Photo, heatmap, png_uri, traced

MOST_CELLS = 20
"""Classes of which a confusion is a table of numbers; more of them are a picture."""


def render(records: list[RunRecord], photos: dict[str, Photo]) -> str:
    """The page over ``records``, which are not empty."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distill", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["short"] = short
    several = len(records) > 1
    return environment.get_template("page.html.j2").render(
        title=f"{len(records)} runs" if several else records[0].title,
        runs=[_run(record, photos, first) for record, first in zip(records, _first_of_set(records), strict=True)],
        overview=overview(records) if several else None,
        accuracy=_accuracy(records) if several else None,
    )


def _first_of_set(records: list[RunRecord]) -> list[int | None]:
    """For each run the number, from 1, of an earlier one of the same set, whose pictures need not be shown again."""
    seen: dict[str, int] = {}
    first: list[int | None] = []
    for number, record in enumerate(records, 1):
        known = seen.setdefault(record.manifest.set_id, number) if record.manifest and record.sheet else number
        first.append(None if known == number else known)
    return first


def _run(record: RunRecord, photos: dict[str, Photo], first: int | None) -> dict[str, Any]:
    manifest = record.manifest
    return {
        "record": record,
        "state": None if record.summary else _unfinished(record),
        "bars": _bars(record),
        "paper": record.config.get("paper"),
        "loss": line_chart({"loss": record.series("loss")}, marks={}, unit="loss", title="Loss over samples seen"),
        "accuracy": _accuracy([record]),
        "classes": _classes(record),
        "confusion": _confusion(record),
        "manifest": manifest,
        "recipe": manifest.recipe.get("name") if manifest else None,
        "first": first,
        "sheet": png_uri(record.sheet) if record.sheet and first is None else None,
        "photos": traced(manifest, photos, record.outlines) if manifest and first is None else [],
        "neurons": [(name, png_uri(data)) for name, data in record.neurons.items()],
        "facts": _facts(record),
        "config": yaml.safe_dump(record.config, sort_keys=False),
        "environment": json.dumps((record.summary or {}).get("environment", {}), indent=1),
    }


def _unfinished(record: RunRecord) -> str:
    seen = max((row["samples"] for row in record.rows), default=0)
    return f"This run has not ended: {seen:,} samples so far."


def _bars(record: RunRecord) -> list[Bar]:
    """Chance, student, teacher and the paper's student, as far as known."""
    bars = [Bar(name="chance", value=100 / record.num_classes, kind="chance")]
    own = record.figure("top1")
    if own is None:
        return []
    who = "this network" if record.supervised else "student"
    bars.append(Bar(name=f"{who}, {record.arch}", value=own, kind="student", key=f"{record.prefix}top1"))
    teacher = None if record.supervised else record.figure("teacher_top1")
    if teacher is not None:
        name = f"teacher, {record.config['teacher']['arch']}"
        bars.append(Bar(name=name, value=teacher, kind="teacher", key="teacher_top1"))
    for key, name in (("one_image_top1", "the paper's student"), ("teacher_top1", "the paper's teacher")):
        value = (record.config.get("paper") or {}).get(key)
        if value is not None:
            bars.append(Bar(name=name, value=float(value), kind="paper"))
    return bars


def _accuracy(records: list[RunRecord]) -> Markup:
    names = names_of(records)
    lines = {name: each.series(f"{each.prefix}top1") for name, each in zip(names, records, strict=True)}
    marks = {"chance": 100 / records[0].num_classes}
    teachers = {each.figure("teacher_top1") for each in records} - {None}
    if len(teachers) == 1:
        marks["teacher"] = float(teachers.pop() or 0)
    return line_chart(
        {name: line for name, line in lines.items() if line}, marks=marks, unit="%", title="Top-1 over samples seen"
    )


def _classes(record: RunRecord) -> list[dict[str, Any]]:
    own = (record.summary or {}).get(f"{record.prefix}per_class")
    if not own or not record.classes:
        return []
    teachers = (record.summary or {}).get("teacher_per_class") or [None] * len(own)
    names = record.classes["names"]
    rows = [dict(zip(("name", "own", "teacher"), row, strict=True)) for row in zip(names, own, teachers, strict=True)]
    return rows if len(rows) <= MOST_CELLS else sorted(rows, key=lambda row: (row["own"] is None, row["own"]))


def _confusion(record: RunRecord) -> dict[str, Any] | None:
    """Between teacher and student, or between labels and network where there is no teacher."""
    classes = record.classes or {}
    counts = classes.get("teacher_network") or classes.get("label_network")
    if not counts:
        return None
    names, size = classes["names"], len(counts)
    rows = "the teacher says" if classes.get("teacher_network") else "the label is"
    off = sorted(((counts[i][j], i, j) for i in range(size) for j in range(size) if i != j), reverse=True)
    return {
        "rows": rows,
        "names": names,
        "table": [[(count, count / max(sum(row), 1)) for count in row] for row in counts]
        if size <= MOST_CELLS
        else None,
        "picture": png_uri(heatmap(counts)) if size > MOST_CELLS else None,
        "most": [(count, names[i], names[j]) for count, i, j in off[:5] if count],
    }


def _facts(record: RunRecord) -> list[tuple[str, str, str]]:
    """Label, text, and key in ``summary.json`` of what it takes to cite and to repeat a run."""
    summary = record.summary or {}
    facts = []
    for key, label, form in (
        ("samples_seen", "samples seen", "{:,}"),
        ("seconds", "training time", "{:,.0f} s"),
        ("images_per_second", "throughput", "{:,.0f} images/s"),
        ("eval_images", "evaluation images", "{:,}"),
        ("weights", "weights", "{}"),
        ("seed", "seed", "{}"),
        ("set_id", "patch set (set_id)", "{}"),
        ("data_sha256", "training images (SHA-256)", "{}"),
        ("teacher_sha256", "teacher's file (SHA-256)", "{}"),
        ("config_sha256", "config (SHA-256 of all that moves a weight)", "{}"),
        ("sha256", "result's file (SHA-256)", "{}"),
    ):
        if summary.get(key) is not None:
            facts.append((label, form.format(summary[key]), key))
    return facts
