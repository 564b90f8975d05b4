"""What stands in a report: every text and number of it, ready for the template."""

import json
from typing import Any

import jinja2
from markupsafe import Markup

from distill.report.chart import STYLES, line_chart, short
from distill.report.collect import RunRecord
from distill.report.compare import Bar, overview, shared, shared_teacher
from distill.report.pictures import heatmap, png_uri, traced
from distill.report.summary_text import augmented, story, without_folders
from manifests.support.counts import counted

PAPER = (
    ("one_image_top1", "the paper's student of one image"),
    ("full_set_top1", "the paper's student of the full training set"),
    ("teacher_top1", "the paper's teacher"),
)
MOST_CELLS = 20
"""Classes of which a confusion is a table of numbers; more of them are a picture."""


FACTS = (
    ("samples_seen", "samples seen", "{:,}"),
    ("seconds", "training time", "{:,.0f} s"),
    ("images_per_second", "throughput", "{:,.0f} images/s"),
    ("eval_images", "evaluation images", "{:,}"),
    ("weights", "weights", "{}"),
    ("seed", "seed", "{}"),
    ("set_id", "patch set (set_id)", "{}"),
    ("data_sha256", "training images (SHA-256)", "{}"),
    ("eval_sha256", "evaluation images and labels (SHA-256)", "{}"),
    ("teacher_sha256", "teacher's file (SHA-256)", "{}"),
    ("teacher_precision", "teacher computed in", "{}"),
    ("config_sha256", "config, with the order it gives (SHA-256)", "{}"),
    ("config_sha256_without_seed", "the same without seeds (SHA-256)", "{}"),
    ("sha256", "result's file (SHA-256)", "{}"),
)
"""To cite and to repeat a run: keys of ``summary.json``, their names on a page, and how they are written."""


def render(records: list[RunRecord], photos: dict[str, bytes], unread: list[str]) -> str:
    """The page over ``records``, which are not empty; ``unread`` says of other runs why they are not on it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distill", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["short"] = short
    environment.filters["counted"] = counted
    several = len(records) > 1
    return environment.get_template("page.html.j2").render(
        title=counted(len(records), "run") if several else records[0].title,
        runs=[_run(record, photos, first) for record, first in zip(records, _first_of_set(records), strict=True)],
        overview=overview(records) if several else None,
        accuracy=_accuracy(records) if 1 < len(records) <= STYLES else None,
        unread=unread,
    )


def _first_of_set(records: list[RunRecord]) -> list[int | None]:
    """For each run the number, from 1, of an earlier one of the same set, whose pictures need not be shown again."""
    seen: dict[str, int] = {}
    first: list[int | None] = []
    for number, record in enumerate(records, 1):
        known = seen.setdefault(record.manifest.set_id, number) if record.manifest and record.sheet else number
        first.append(None if known == number else known)
    return first


def _run(record: RunRecord, photos: dict[str, bytes], first: int | None) -> dict[str, Any]:
    manifest = record.manifest
    return {
        "record": record,
        "name": record.folder.resolve().name,
        "story": story(record),
        "config": without_folders(record.text),
        "augmented": augmented(record.config.augment),
        "gray": record.config.augment.grayscale >= 1,
        "state": None if record.summary else _unfinished(record),
        "bars": _bars(record),
        "paper": record.config.paper,
        "loss": line_chart([record.series("loss")], marks={}, unit="loss", title="Loss over samples seen"),
        "accuracy": _accuracy([record]),
        "classes": _classes(record),
        "confusion": _confusion(record),
        "manifest": manifest,
        "recipe": manifest.recipe.get("name") if manifest else None,
        "first": first,
        "sheet": png_uri(record.sheet) if record.sheet and first is None else None,
        "photos": traced(manifest, photos, record.places) if manifest and first is None else [],
        "neurons": [(name, png_uri(data)) for name, data in record.neurons.items()],
        "facts": _facts(record),
        "environment": json.dumps(record.summary.environment if record.summary else {}, indent=1),
    }


def _unfinished(record: RunRecord) -> str:
    seen = max((row["samples"] for row in record.rows), default=0)
    return f"This run has not ended: {counted(round(seen), 'sample', ',')} so far."


def _bars(record: RunRecord) -> list[Bar]:
    """Chance, student, teacher and the paper's three, as far as known."""
    own, teacher = record.figure("top1"), record.figure("teacher_top1")
    if own is None:
        return []
    who = "this network" if record.supervised else "student"
    bars = [
        Bar(name="chance", value=100 / record.num_classes, kind="chance"),
        Bar(name=f"{who}, {record.learner.arch}", value=own, kind="student", key=f"{record.prefix}top1"),
    ]
    if teacher is not None and record.config.teacher is not None:
        name = f"teacher, {record.config.teacher.arch}"
        bars.append(Bar(name=name, value=teacher, kind="teacher", key="teacher_top1"))
    reported = [(name, getattr(record.config.paper, key, None)) for key, name in PAPER]
    return bars + [Bar(name=name, value=value, kind="paper") for name, value in reported if value is not None]


def _accuracy(records: list[RunRecord]) -> Markup:
    chance = shared(100 / record.num_classes for record in records)
    found = {"chance": chance, "teacher": shared_teacher(records)}
    marks = {name: value for name, value in found.items() if value is not None}
    lines = [record.series(f"{record.prefix}top1") for record in records]
    return line_chart(lines, marks=marks, unit="%", title="Top-1 over samples seen")


def _classes(record: RunRecord) -> list[dict[str, Any]]:
    """Name, own and teacher's top-1 of each class; where there are many, the hardest first."""
    own = record.figure("per_class")
    if not own or not record.classes:
        return []
    teachers = record.figure("teacher_per_class") or [None] * len(own)
    parts = zip(record.classes.names, own, teachers, strict=True)
    rows = [{"name": name, "own": top1, "teacher": teacher} for name, top1, teacher in parts]
    return rows if len(rows) <= MOST_CELLS else sorted(rows, key=lambda row: (row["own"] is None, row["own"] or 0))


def _confusion(record: RunRecord) -> dict[str, Any] | None:
    """Between teacher and student, or between labels and network where there is no teacher."""
    if record.classes is None:
        return None
    taught = record.classes.teacher_network is not None
    counts = record.classes.teacher_network if taught else record.classes.label_network
    if not counts:
        return None
    names, size = record.classes.names, len(counts)
    off = sorted(((counts[i][j], i, j) for i in range(size) for j in range(size) if i != j), reverse=True)
    small = size <= MOST_CELLS
    return {
        "taught": taught,
        "names": names,
        "table": [[(count, count / max(sum(row), 1)) for count in row] for row in counts] if small else None,
        "picture": None if small else png_uri(heatmap(counts)),
        "most": [(count, names[i], names[j]) for count, i, j in off[:5] if count],
    }


def _facts(record: RunRecord) -> list[tuple[str, str, str]]:
    """Label, text, and key in ``summary.json``."""
    found = [(label, form, key, getattr(record.summary, key, None)) for key, label, form in FACTS]
    return [(label, form.format(value), key) for label, form, key, value in found if value is not None]
