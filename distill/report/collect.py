"""Read run directories. If a run has not written a file yet, the value of the file is None.

A run directory may be untrusted or from an earlier version, so every file is validated.
"""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from distill.errors import DistillError
from distill.report.run_files import Classes, RunConfig, SamplePatch, SamplePatches, SetFigures, Summary
from distill.training.patch_sample import MANIFEST_NAME, OUTLINES_NAME, SHEET_NAME
from distill.training.run_dir import CLASSES_NAME, CONFIG_NAME, METRICS_NAME, SUMMARY_NAME
from distill.training.run_identity import run_identity
from manifests.errors import PatchSetError
from manifests.format.canonical_json import parse_json
from manifests.format.schema import Manifest, parse_manifest
from manifests.support.files import read_regular_file
from manifests.support.validation import describe
from manifests.support.yaml_core import parse_yaml

NEURONS_PREFIX = "neurons-"
MAX_BYTES = 64 << 20
MAX_NUMBER = 1e100  # greater numbers in a log are ignored, so that the coordinates of charts are finite

M = TypeVar("M", bound=BaseModel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of a run directory."""

    folder: Path
    text: str  # the text of ``config.yaml``
    config: RunConfig
    rows: list[dict[str, float]]  # numbers by name, for each line of the log
    summary: Summary | None
    classes: Classes | None
    manifest: Manifest | None  # the manifest of the patch set
    sheet: bytes | None  # ``patches.png``, a picture of ``sample_patches``
    sample_patches: list[SamplePatch]
    neurons: dict[str, bytes]  # PNG files of ``distill visualize`` by name of the network

    @property
    def supervised(self) -> bool:
        """Whether this is a run of ``distill train-teacher``."""
        return self.config.network is not None

    @property
    def prefix(self) -> str:
        """The prefix of the names of the trained network's figures in the log and in ``summary.json``."""
        return "" if self.supervised else "student_"

    @property
    def num_classes(self) -> int:
        """The number of classes of the trained network."""
        return (self.config.teacher or self.config.trained).num_classes

    @property
    def title(self) -> str:
        """A title with the networks of the run: teacher and student, or the network trained from labels."""
        teacher, arch = self.config.teacher, self.config.trained.arch
        if teacher is None:
            return f"{arch} from labels"
        more = f" and {len(teacher.others)} more" if teacher.others else ""
        return f"{teacher.arch}{more} → {arch}"

    @property
    def set_name(self) -> str:
        """A short text about the training data: the number of patches and the name of the photo."""
        if self.manifest is None:
            return "labelled images" if self.supervised else ""
        sources = [source.name for source in self.manifest.sources]
        return f"{self.manifest.n:,} of {sources[0]}{f' and {len(sources) - 1} more' if sources[1:] else ''}"

    def identity(self) -> dict[str, Any]:
        """Return the settings and digests that must be equal for all runs of a mean, see ``run_identity``."""
        summary = {} if self.summary is None else self.summary.model_dump()
        return run_identity(self.config.model_dump(mode="json", exclude_unset=True), summary)

    @property
    def evaluations(self) -> dict[str, SetFigures]:
        """The figures of each evaluation set with a name."""
        return {} if self.summary is None else self.summary.evaluations

    def set_top1(self, name: str) -> float | None:
        """Return the top-1 of the trained network on the evaluation set ``name`` in percent; None if unknown."""
        figures = self.evaluations.get(name)
        return None if figures is None else figures.top1 if self.supervised else figures.student_top1

    def figure(self, name: str) -> Any:
        """Return a figure of the summary by its name without prefix, such as ``top1``; None if it is missing."""
        return getattr(self.summary, self.prefix + name, getattr(self.summary, name, None))

    def series(self, name: str) -> list[tuple[float, float]]:
        """Return a point (samples seen, value) for each line of the log that contains the value ``name``."""
        names = {name, self.prefix + name}
        return [(row["samples"], row[key]) for row in self.rows for key in names if key in row]


def find_runs(path: Path) -> list[Path]:
    """Return ``path`` if it is a run directory, else all run directories one or two levels below ``path``."""
    try:
        if (path / CONFIG_NAME).is_file():
            return [path]
        depths = (f"*/{CONFIG_NAME}", f"*/*/{CONFIG_NAME}")
        found = sorted(file.parent for depth in depths for file in path.glob(depth)) if path.is_dir() else []
    except OSError as error:
        raise DistillError(f"{str(path)[:200]}: cannot be read: {error.strerror}; choose another RUN") from error
    if not found:
        raise DistillError(f"{path}: is not a run directory: {CONFIG_NAME} is missing; choose another RUN")
    return found


def read_run(folder: Path) -> RunRecord:
    """Read and validate a run directory."""
    path = folder / MANIFEST_NAME
    manifest_bytes = _read_bytes(path)
    text = (_read_bytes(folder / CONFIG_NAME) or b"").decode("utf-8", "backslashreplace")
    try:
        config = _validate(folder / CONFIG_NAME, RunConfig, parse_yaml(text))
        manifest = None if manifest_bytes is None else parse_manifest(manifest_bytes, str(path))
    except PatchSetError as error:
        raise DistillError(str(error)) from error
    except ValueError as error:
        raise DistillError(f"{folder / CONFIG_NAME}: {error}; restore the file, or choose another RUN") from error
    sample = _read_json(folder / OUTLINES_NAME, SamplePatches)
    pictures = sorted(folder.glob(f"{NEURONS_PREFIX}*.png"))
    record = RunRecord(
        folder=folder,
        text=text,
        config=config,
        rows=_read_log(folder / METRICS_NAME),
        summary=_read_json(folder / SUMMARY_NAME, Summary),
        classes=_read_json(folder / CLASSES_NAME, Classes),
        manifest=manifest,
        sheet=_read_bytes(folder / SHEET_NAME),
        sample_patches=sample.patches if sample else [],
        neurons={path.stem.removeprefix(NEURONS_PREFIX): _read_bytes(path) or b"" for path in pictures},
    )
    for key in ("per_class", "teacher_per_class"):
        if record.classes and (values := record.figure(key)) and len(values) != len(record.classes.names):
            found = f"contains {len(record.classes.names)} names, expected {len(values)} as in {SUMMARY_NAME}"
            raise DistillError(f"{folder / CLASSES_NAME}: {found}; delete {CLASSES_NAME}")
    return record


def _read_bytes(path: Path) -> bytes | None:
    try:
        return read_regular_file(path, MAX_BYTES) if path.exists() else None
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror or error}; choose another RUN") from error


def _read_json(path: Path, model: type[M]) -> M | None:
    """Read a JSON file and validate it with ``model``. Return None if the file does not exist."""
    data = _read_bytes(path)
    try:
        return None if data is None else _validate(path, model, parse_json(data, str(path)))
    except PatchSetError as error:
        raise DistillError(str(error)) from error


def _validate(path: Path, model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise DistillError(f"{path}: {describe(error, model)}; restore the file, or choose another RUN") from error


def _read_log(path: Path) -> list[dict[str, float]]:
    """Return numeric values by name for each line of a log. Skip damaged lines, such as an incomplete last line."""
    rows = []
    for line in (_read_bytes(path) or b"").splitlines():
        try:
            row = parse_json(line, str(path))
        except PatchSetError:
            continue
        if isinstance(row, dict):
            numbers = {k: float(v) for k, v in row.items() if type(v) in (int, float) and abs(v) < MAX_NUMBER}
            if "samples" in numbers:
                rows.append(numbers)
    return rows
