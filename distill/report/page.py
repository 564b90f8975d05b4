"""The content of a report: every text and number, ready for the template ``page.html.j2``."""

import json
from typing import Any

import jinja2
from markupsafe import Markup

from distill.report.chart import STYLES, format_count, line_chart
from distill.report.collect import RunRecord
from distill.report.compare import Bar, common_teacher, common_value, overview
from distill.report.pictures import data_uri, heatmap, outlined_photos
from distill.report.summary_text import describe_augmentation, describe_run, without_folders
from manifests.support.counts import counted

PAPER = (
    ("one_image_top1", "the paper's student of one image"),
    ("full_set_top1", "the paper's student of the full training set"),
    ("teacher_top1", "the paper's teacher"),
)
MAX_CLASSES = 20
"""Maximum classes of a confusion matrix that is shown as numbers; larger ones are shown as a picture."""
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
"""Keys of ``summary.json`` to cite and repeat a run, with their labels and formats."""


def render(records: list[RunRecord], photos: dict[str, bytes], errors: list[str]) -> str:
    """Return the HTML page of ``records``, at least one; ``errors`` are of runs that could not be read."""
    loader = jinja2.PackageLoader("distill", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"short": format_count, "counted": counted}
    several = len(records) > 1
    first_runs: dict[str, int] = {}
    runs = []
    for number, record in enumerate(records, 1):
        set_id = record.manifest.set_id if record.manifest and record.sheet else f"run {number}"
        first = first_runs.setdefault(set_id, number)
        runs.append(_run(record, photos, None if first == number else first))
    return environment.get_template("page.html.j2").render(
        title=counted(len(records), "run") if several else records[0].title,
        runs=runs,
        overview=overview(records) if several else None,
        accuracy=_accuracy(records) if 1 < len(records) <= STYLES else None,
        errors=errors,
    )


def _run(record: RunRecord, photos: dict[str, bytes], first: int | None) -> dict[str, Any]:
    """Return the content for one run; ``first`` is the number of an earlier run that shows the same set's patches."""
    manifest = record.manifest
    return {
        "record": record,
        "name": record.folder.resolve().name,
        "description": describe_run(record),
        "config": without_folders(record.text),
        "augmentation": describe_augmentation(record.config.augment),
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
        "sheet": data_uri(record.sheet) if record.sheet and first is None else None,
        "photos": outlined_photos(manifest, photos, record.sample_patches) if manifest and first is None else [],
        "neurons": [(name, data_uri(data)) for name, data in record.neurons.items()],
        "facts": _facts(record),
        "environment": json.dumps(record.summary.environment if record.summary else {}, indent=1),
    }


def _unfinished(record: RunRecord) -> str:
    seen = max((row["samples"] for row in record.rows), default=0)
    return f"This run has not ended: {counted(round(seen), 'sample', ',')} so far."


def _bars(record: RunRecord) -> list[Bar]:
    """Return the bars of chance, the trained network, its teacher and the paper's three figures, as far as known."""
    own, teacher = record.figure("top1"), record.figure("teacher_top1")
    if own is None:
        return []
    role = "this network" if record.supervised else "student"
    bars = [
        Bar(name="chance", value=100 / record.num_classes, kind="chance"),
        Bar(name=f"{role}, {record.config.trained.arch}", value=own, kind="student", key=f"{record.prefix}top1"),
    ]
    if teacher is not None and record.config.teacher is not None:
        name = f"teacher, {record.config.teacher.arch}"
        bars.append(Bar(name=name, value=teacher, kind="teacher", key="teacher_top1"))
    reported = [(name, getattr(record.config.paper, key, None)) for key, name in PAPER]
    return bars + [Bar(name=name, value=value, kind="paper") for name, value in reported if value is not None]


def _accuracy(records: list[RunRecord]) -> Markup:
    chance = common_value(100 / record.num_classes for record in records)
    known = {"chance": chance, "teacher": common_teacher(records)}
    marks = {name: value for name, value in known.items() if value is not None}
    lines = [record.series(f"{record.prefix}top1") for record in records]
    return line_chart(lines, marks=marks, unit="%", title="Top-1 over samples seen")


def _classes(record: RunRecord) -> list[dict[str, Any]]:
    """Return name, own and teacher's top-1 of each class; if there are many, the hardest first."""
    own = record.figure("per_class")
    if not own or not record.classes:
        return []
    teachers = record.figure("teacher_per_class") or [None] * len(own)
    parts = zip(record.classes.names, own, teachers, strict=True)
    rows = [{"name": name, "own": top1, "teacher": teacher} for name, top1, teacher in parts]
    return rows if len(rows) <= MAX_CLASSES else sorted(rows, key=lambda row: (row["own"] is None, row["own"] or 0))


def _confusion(record: RunRecord) -> dict[str, Any] | None:
    """Return the confusion of teacher and student, or of labels and network if there is no teacher."""
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


def _facts(record: RunRecord) -> list[tuple[str, str, str]]:
    """Return label, text, and key in ``summary.json`` of every known fact."""
    values = ((label, form, key, getattr(record.summary, key, None)) for key, label, form in FACTS)
    return [(label, form.format(value), key) for label, form, key, value in values if value is not None]
