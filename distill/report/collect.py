"""Run directories in, what a report shows of them out. Whatever a run lacks, because it goes on yet, is None."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from distill.errors import DistillError
from distill.runs import CLASSES_NAME
from distill.sample import MANIFEST_NAME, OUTLINES_NAME, SHEET_NAME
from distill.session import METRICS_NAME, SUMMARY_NAME
from manifests.errors import PatchSetError
from manifests.faults import parse_yaml
from manifests.files import read_regular_file
from manifests.schema import Manifest, parse_manifest

NEURONS_PREFIX = "neurons-"
CONFIG_NAME = "config.yaml"
MAX_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run directory, read. ``rows`` are the lines of its log; ``outlines`` are of the patches in ``sheet``;
    ``neurons`` are pictures (PNG) by the network they are of.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any] | None
    classes: dict[str, Any] | None
    manifest: Manifest | None
    sheet: bytes | None
    outlines: list[dict[str, Any]]
    neurons: dict[str, bytes]

    @property
    def supervised(self) -> bool:
        """Whether it is one of ``distill teacher``."""
        return "network" in self.config

    @property
    def prefix(self) -> str:
        """Of the names of its figures."""
        return "" if self.supervised else "student_"

    @property
    def arch(self) -> str:
        """Of the network that was trained."""
        return str(self.config["network" if self.supervised else "student"]["arch"])

    @property
    def num_classes(self) -> int:
        """Of that network."""
        return int(self.config["network" if self.supervised else "teacher"]["num_classes"])

    @property
    def title(self) -> str:
        """Who learnt from whom."""
        return f"{self.arch} from labels" if self.supervised else f"{self.config['teacher']['arch']} → {self.arch}"

    @property
    def seed(self) -> int:
        """Of its config."""
        return int(self.config["train"]["seed"])

    def figure(self, name: str) -> float | None:
        """A figure of the summary by its bare name, such as ``top1``."""
        value = None if self.summary is None else self.summary.get(self.prefix + name, self.summary.get(name))
        return float(value) if isinstance(value, int | float) else None

    def series(self, name: str) -> list[tuple[float, float]]:
        """Samples seen and a figure, from every line of the log that has it."""
        return [(row["samples"], row[name]) for row in self.rows if isinstance(row.get(name), int | float)]


def find_runs(paths: list[Path]) -> list[Path]:
    """The run directories among ``paths`` and up to two folders below: several seeds count as their runs.

    Raises:
        DistillError: a path is no run directory and holds none.
    """
    found = []
    for path in paths:
        depths = (f"*/{CONFIG_NAME}", f"*/*/{CONFIG_NAME}")
        below = sorted(file.parent for depth in depths for file in path.glob(depth)) if path.is_dir() else []
        runs = [path] if (path / CONFIG_NAME).is_file() else below
        if not runs:
            raise DistillError(f"{path}: no run directory: expected {CONFIG_NAME} in it or in its folders")
        found += runs
    return list(dict.fromkeys(found))


def read_run(folder: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        DistillError: a file of it is damaged.
    """
    try:
        config = parse_yaml(_text(folder / CONFIG_NAME) or "")
        summary, classes = _json(folder / SUMMARY_NAME), _json(folder / CLASSES_NAME)
        outlines = _json(folder / OUTLINES_NAME)
        held = _bytes(folder / MANIFEST_NAME)
        pictures = sorted(folder.glob(f"{NEURONS_PREFIX}*.png"))
        neurons = {each.stem.removeprefix(NEURONS_PREFIX): read_regular_file(each, MAX_BYTES) for each in pictures}
        record = RunRecord(
            folder=folder,
            config=config,
            rows=_rows(folder / METRICS_NAME),
            summary=summary,
            classes=classes,
            manifest=None if held is None else parse_manifest(held, str(folder / MANIFEST_NAME)),
            sheet=_bytes(folder / SHEET_NAME),
            outlines=outlines or [],
            neurons=neurons,
        )
        _check(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise DistillError(f"{folder}: cannot be read as a run directory: {reason}") from error
    except PatchSetError as error:
        raise DistillError(str(error)) from error
    return record


def _check(record: RunRecord) -> None:
    """Raise one of the errors that ``read_run`` expects, where a file holds something else than runs write."""
    _ = record.title, record.seed, record.num_classes, record.config["data"], record.figure("top1")
    count = len((record.classes or {"names": []})["names"])
    held = record.summary or {}
    if record.classes and any(
        len(values) != count
        for key in (f"{record.prefix}per_class", "teacher_per_class")
        if (values := held.get(key))
    ):
        raise ValueError(f"{CLASSES_NAME} and {SUMMARY_NAME} have other classes")
    for name in ("label_network", "teacher_network"):
        table = (record.classes or {}).get(name) or []
        if [len(row) for row in table] not in ([], [count] * count):
            raise ValueError(f"{CLASSES_NAME}: {name} is no square table")
    for patch in record.outlines:
        _ = [(float(x), float(y)) for x, y in patch.get("corners", [])]


def _bytes(path: Path) -> bytes | None:
    return read_regular_file(path, MAX_BYTES) if path.exists() else None


def _text(path: Path) -> str | None:
    data = _bytes(path)
    return None if data is None else data.decode()


def _json(path: Path) -> Any:
    text = _text(path)
    return None if text is None else json.loads(text)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in (_text(path) or "").splitlines():
        try:
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("samples"), int | float):
                rows.append(row)
        except ValueError:
            continue  # the last line of a run that was killed
    return rows
