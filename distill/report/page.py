"""Render the HTML page of a report with the template ``page.html.j2``."""

import json
import re
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from distill.report.chart import STYLES, TEMPLATES, line_chart
from distill.report.collect import RunRecord
from distill.report.compare import Bar, common_teacher, common_value, overview
from distill.report.pictures import data_uri, heatmap, outlined_photos
from manifests.support.counts import counted

PAPER = {
    "one_image_top1": "the paper's student of one image",
    "full_set_top1": "the paper's student of the full training set",
    "teacher_top1": "the paper's teacher",
}
MAX_CLASSES = 20
"""Maximum number of classes of a confusion matrix shown as numbers. A larger matrix is shown as a picture."""


def render(records: list[RunRecord], photos: dict[str, bytes], errors: list[str]) -> str:
    """Return a report as HTML. ``photos`` are JPEGs by SHA-256 of the original. ``errors`` are about damaged runs."""
    first_runs: dict[str, int] = {}
    runs = []
    for number, record in enumerate(records, 1):
        set_id = record.manifest.set_id if record.manifest and record.sheet else f"run {number}"
        first = first_runs.setdefault(set_id, number)
        runs.append(_run(record, photos, None if first == number else first))
    several = len(records) > 1
    return TEMPLATES.get_template("page.html.j2").render(
        title=counted(len(records), "run") if several else records[0].title,
        runs=runs,
        overview=overview(records) if several else None,
        accuracy=_accuracy(records) if 1 < len(records) <= STYLES else None,
        errors=errors,
    )


def _run(record: RunRecord, photos: dict[str, bytes], first: int | None) -> dict[str, Any]:
    """Return the data of a run's section. ``first`` is the number of an earlier run with equal patches, or None."""
    manifest = record.manifest if first is None else None
    return {
        "record": record,
        "name": record.folder.resolve().name,
        "bars": _bars(record),
        "loss": line_chart([record.series("loss")], marks={}, unit="loss", title="Loss over samples seen"),
        "accuracy": _accuracy([record]),
        "classes": _classes(record),
        "confusion": _confusion(record),
        "first": first,
        "sheet": data_uri(record.sheet) if record.sheet and first is None else None,
        "photos": outlined_photos(manifest, photos, record.sample_patches) if manifest else [],
        "neurons": [(name, data_uri(data)) for name, data in record.neurons.items()],
    }


def _bars(record: RunRecord) -> list[Bar]:
    """Return bars for chance, the trained network, its teacher, and the paper's figures, if known."""
    own, teacher, config = record.figure("top1"), record.figure("teacher_top1"), record.config
    if own is None:
        return []
    role = "this network" if record.supervised else "student"
    bars = [Bar("chance", 100 / record.num_classes, "chance")]
    bars.append(Bar(f"{role}, {config.trained.arch}", own, "student", key=f"{record.prefix}top1"))
    if teacher is not None and config.teacher is not None:
        bars.append(Bar(f"teacher, {config.teacher.arch}", teacher, "teacher", key="teacher_top1"))
    reported = [(name, getattr(config.paper, key, None)) for key, name in PAPER.items()]
    return bars + [Bar(name, value, "paper") for name, value in reported if value is not None]


def _accuracy(records: list[RunRecord]) -> Markup:
    chance = common_value(100 / record.num_classes for record in records)
    known = {"chance": chance, "teacher": common_teacher(records)}
    marks = {name: value for name, value in known.items() if value is not None}
    return line_chart([run.series("top1") for run in records], marks=marks, unit="%", title="Top-1 over samples seen")


def _classes(record: RunRecord) -> list[dict[str, Any]]:
    """Return the top-1 of network and teacher for each class. More than 20 classes are sorted by top-1."""
    own = record.figure("per_class")
    if not own or not record.classes:
        return []
    teachers = record.figure("teacher_per_class") or [None] * len(own)
    parts = zip(record.classes.names, own, teachers, strict=True)
    rows = [{"name": name, "own": top1, "teacher": teacher} for name, top1, teacher in parts]
    return rows if len(rows) <= MAX_CLASSES else sorted(rows, key=lambda row: (row["own"] is None, row["own"] or 0))


def _confusion(record: RunRecord) -> dict[str, Any] | None:
    """Return the confusion matrix of teacher and student; for a run without a teacher, of labels and network."""
    if record.classes is None:
        return None
    by_teacher = record.classes.teacher_network is not None
    counts = record.classes.teacher_network if by_teacher else record.classes.label_network
    if not counts:
        return None
    names, size = record.classes.names, len(counts)
    off = sorted(((counts[i][j], i, j) for i in range(size) for j in range(size) if i != j), reverse=True)
    small = size <= MAX_CLASSES
    return {
        "by_teacher": by_teacher,
        "names": names,
        "table": [[(count, count / max(sum(row), 1)) for count in row] for row in counts] if small else None,
        "picture": None if small else data_uri(heatmap(counts)),
        "most": [(count, names[i], names[j]) for count, i, j in off[:5] if count],
    }


def without_folders(text: str) -> str:
    """Remove the folders of absolute paths from the text of a config, because users share pages."""
    return re.sub(r"(?m)^(\s*\w+: )['\"]?/.*/", r"\1…/", text)


TEMPLATES.filters |= {
    "file_name": lambda path: PurePath(path).name,
    "to_json": lambda value: json.dumps(value, indent=1),
    "without_folders": without_folders,
}
