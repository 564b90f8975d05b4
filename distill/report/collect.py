"""Run directories in, what a report shows of them out. Whatever a run lacks, because it goes on yet, is None.

A run directory may come from another lab, or from a version before this one: each file is checked as it is read.
"""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from distill.errors import DistillError
from distill.report.run_files import Classes, NetworkPart, Place, Places, RunConfig, Summary
from distill.training.patch_sample import MANIFEST_NAME, OUTLINES_NAME, SHEET_NAME
from distill.training.provenance import origin
from distill.training.run_dir import CLASSES_NAME, CONFIG_NAME, METRICS_NAME, SUMMARY_NAME
from manifests.errors import PatchSetError
from manifests.format.canonical_json import parse_json
from manifests.format.schema import Manifest, parse_manifest
from manifests.support.files import read_regular_file
from manifests.support.validation import describe
from manifests.support.yaml_core import parse_yaml

NEURONS_PREFIX = "neurons-"
MAX_BYTES = 64 << 20
MAX_NUMBER = 1e100
"""No figure of a run comes near it, and a chart's arithmetic stays finite below."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run directory, read. ``text`` is its config as it stands; ``rows`` are the lines of its log.

    ``places`` are of the patches in ``sheet``, a PNG; ``neurons`` are PNGs by the network they are of.
    """

    folder: Path
    text: str
    config: RunConfig
    rows: list[dict[str, float]]
    summary: Summary | None
    classes: Classes | None
    manifest: Manifest | None
    sheet: bytes | None
    places: list[Place]
    neurons: dict[str, bytes]

    @property
    def supervised(self) -> bool:
        """Whether it is one of ``distill train-teacher``."""
        return self.config.network is not None

    @property
    def prefix(self) -> str:
        """Of the names of its figures."""
        return "" if self.supervised else "student_"

    @property
    def learner(self) -> NetworkPart:
        """The network that was trained."""
        return self.config.learner

    @property
    def num_classes(self) -> int:
        """Of that network."""
        return self.learner.num_classes if self.config.teacher is None else self.config.teacher.num_classes

    @property
    def title(self) -> str:
        """Who learnt from whom."""
        teacher = self.config.teacher
        return f"{self.learner.arch} from labels" if teacher is None else f"{teacher.arch} → {self.learner.arch}"

    @property
    def seed(self) -> int:
        """Of its config."""
        return self.config.train.seed

    def origin(self) -> dict[str, Any]:
        """What it shares with runs of which it may be one of a mean."""
        summary = {} if self.summary is None else self.summary.model_dump()
        return origin(self.config.model_dump(mode="json", exclude_unset=True), summary)

    def figure(self, name: str) -> Any:
        """A figure of the summary by its bare name, such as ``top1``; None where there is none."""
        if self.summary is None:
            return None
        return getattr(self.summary, self.prefix + name, getattr(self.summary, name, None))

    def series(self, name: str) -> list[tuple[float, float]]:
        """Samples seen and a figure, from every line of the log that has it."""
        return [(row["samples"], row[name]) for row in self.rows if name in row]


def find_runs(path: Path) -> list[Path]:
    """The run directory that ``path`` is, or those up to two folders below it.

    Raises:
        DistillError: it is none and holds none, or cannot be read.
    """
    try:
        if (path / CONFIG_NAME).is_file():
            return [path]
        depths = (f"*/{CONFIG_NAME}", f"*/*/{CONFIG_NAME}")
        found = sorted(file.parent for depth in depths for file in path.glob(depth)) if path.is_dir() else []
    except OSError as error:
        raise DistillError(f"{str(path)[:200]}: cannot be read: {error.strerror}") from error
    if not found:
        raise DistillError(f"{path}: no run directory: expected {CONFIG_NAME} in it or in its folders")
    return found


def read_run(folder: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        DistillError: a file of it is damaged, or no run's.
    """
    held = _bytes(folder / MANIFEST_NAME)
    text = (_bytes(folder / CONFIG_NAME) or b"").decode("utf-8", "backslashreplace")
    pictures = sorted(folder.glob(f"{NEURONS_PREFIX}*.png"))
    try:
        config = _checked(folder / CONFIG_NAME, RunConfig, parse_yaml(text))
        manifest = None if held is None else parse_manifest(held, str(folder / MANIFEST_NAME))
    except (ValueError, PatchSetError) as error:
        raise DistillError(f"{folder / CONFIG_NAME}: {error}") from error
    summary, classes = _json(folder / SUMMARY_NAME, Summary), _json(folder / CLASSES_NAME, Classes)
    places = _json(folder / OUTLINES_NAME, Places)
    record = RunRecord(
        folder=folder,
        text=text,
        config=config,
        rows=_rows(folder / METRICS_NAME),
        summary=summary,
        classes=classes,
        manifest=manifest,
        sheet=_bytes(folder / SHEET_NAME),
        places=places.patches if places else [],
        neurons={each.stem.removeprefix(NEURONS_PREFIX): _bytes(each) or b"" for each in pictures},
    )
    for key in ("per_class", "teacher_per_class"):
        if classes and (values := record.figure(key)) and len(values) != len(classes.names):
            raise DistillError(f"{folder / CLASSES_NAME}: has other classes than {SUMMARY_NAME}")
    return record


def _bytes(path: Path) -> bytes | None:
    try:
        return read_regular_file(path, MAX_BYTES) if path.exists() else None
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror or error}") from error


M = TypeVar("M", bound=BaseModel)


def _json(path: Path, model: type[M]) -> M | None:
    """A file as what ``model`` says, or None where there is none."""
    data = _bytes(path)
    if data is None:
        return None
    try:
        return _checked(path, model, parse_json(data, str(path)))
    except PatchSetError as error:
        raise DistillError(str(error)) from error


def _checked(path: Path, model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise DistillError(f"{path}: {describe(error, model)}") from error


def _rows(path: Path) -> list[dict[str, float]]:
    """The numbers in each line of a log; the last line of a run that was killed may be cut short."""
    rows = []
    for line in (_bytes(path) or b"").splitlines():
        try:
            row = parse_json(line, str(path))
        except PatchSetError:
            continue
        if isinstance(row, dict):
            numbers = {k: float(v) for k, v in row.items() if type(v) in (int, float) and abs(v) < MAX_NUMBER}
            if "samples" in numbers:
                rows.append(numbers)
    return rows
