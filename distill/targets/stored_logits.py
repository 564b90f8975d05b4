"""Stored logits of a teacher for every step of a view, format ``labels/1``.

A folder of ``logits-NNNNNN.npy``, float16 (rows, classes), whole steps in order, and ``labels.json``, written last,
with the set, the teacher, the view and the SHA-256 of every file.
"""

import dataclasses
import hashlib
import math
import tokenize
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from distill.augment import AugmentConfig
from distill.errors import DistillError
from distill.runtime.precision import Precision
from distill.targets.teacher import Network, TeacherConfig
from distill.weights.files import Triple
from distill.weights.normalization import check_mean, check_std
from manifests.format.canonical_json import canonical_json, parse_json
from manifests.format.digest import file_digest
from manifests.support.counts import counted
from manifests.support.files import is_plain, read_regular_file
from manifests.support.validation import describe

MANIFEST_NAME = "labels.json"
MAX_MANIFEST_BYTES = 1 << 24
FILE_BYTES = 32 << 20

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Three = Annotated[list[float], Field(min_length=3, max_length=3)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LogitsFile(_Part):
    """One array file with the logits of ``steps`` steps."""

    name: Annotated[str, Field(pattern=r"^logits-[0-9]{6}\.npy$")]
    steps: Annotated[int, Field(ge=1)]
    sha256: Digest


class TeacherInfo(_Part):
    """The teacher that computed the logits, and the normalization of its input."""

    arch: Annotated[str, Field(max_length=200)]
    sha256: Digest
    num_classes: Annotated[int, Field(ge=2, le=100_000)]
    mean: Annotated[Three, AfterValidator(check_mean)]
    std: Annotated[Three, AfterValidator(check_std)]
    classes: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=100_000)] = []

    @property
    def normalization(self) -> tuple[Triple, Triple]:
        """Mean and standard deviation of RGB in [0, 1]."""
        (a, b, c), (d, e, f) = self.mean, self.std
        return (a, b, c), (d, e, f)


class LogitsManifest(_Part):
    """What the logits were computed from; a run that trains on them must have the same set, teacher and view."""

    format: Literal["labels/1"]
    set_id: Digest
    teacher: TeacherInfo
    view: dict[str, Any]
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    precision: Precision
    files: Annotated[list[LogitsFile], Field(max_length=50_000)]
    environment: dict[str, str]

    def to_json(self) -> bytes:
        """Return the bytes of ``labels.json``."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True)) + b"\n"

    @property
    def sha256(self) -> str:
        """The SHA-256 of ``labels.json``, as hex."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def steps(self) -> int:
        """The number of steps that have logits."""
        return sum(file.steps for file in self.files)


def file_name(number: int) -> str:
    """Return the name of array file ``number``, counted from 0."""
    return f"logits-{number:06d}.npy"


def steps_per_file(batch_size: int, num_classes: int) -> int:
    """Return how many steps one array file holds: as many as fit into 32 MiB, at least one."""
    return max(1, FILE_BYTES // (2 * batch_size * num_classes))


def read_manifest(folder: Path) -> LogitsManifest:
    """Read the manifest of stored logits."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise DistillError(
            f"{folder}: no stored logits here: {MANIFEST_NAME} is missing; run distill make-logits to its end"
        )
    try:
        value = parse_json(read_regular_file(path, MAX_MANIFEST_BYTES), str(path))
        manifest = LogitsManifest.model_validate(value)
    except ValidationError as error:
        raise DistillError(f"{path}: {describe(error, LogitsManifest)}; get it again") from error
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # nested deeper than pydantic goes
        raise DistillError(f"{path}: {str(error).splitlines()[0]}; get it again") from error
    order = manifest.view.get("order")
    if not manifest.files or not isinstance(order, dict) or order.get("batch_size") != manifest.batch_size:
        raise DistillError(f"{path}: has no files, or a batch_size that is not its view's; get it again")
    return manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredLogits:
    """Verified array files, mapped into memory: ``arrays`` float16 (steps × batch_size, classes), in order."""

    folder: Path
    manifest: LogitsManifest
    arrays: tuple[np.ndarray, ...]

    def of_step(self, step: int) -> Tensor:
        """Return the logits of ``step``: float16 (batch_size, classes)."""
        size = self.manifest.batch_size
        per_file = self.manifest.files[0].steps
        first = (step % per_file) * size
        return torch.from_numpy(self.arrays[step // per_file][first : first + size].copy())

    def require_unchanged(self) -> None:
        """Hash the opened files again; raises DistillError if one has changed."""
        for file in self.manifest.files[: len(self.arrays)]:
            _require_digest(self.folder / file.name, file)


def open_logits(folder: Path, manifest: LogitsManifest, steps: int) -> StoredLogits:
    """Verify the files that hold the logits of the first ``steps`` steps, and map them into memory."""
    lengths = [file.steps for file in manifest.files]
    if (
        len(set(lengths[:-1])) > 1
        or lengths[-1] > lengths[0]
        or lengths[0] > steps_per_file(manifest.batch_size, manifest.teacher.num_classes)
        or [file.name for file in manifest.files] != [file_name(i) for i in range(len(manifest.files))]
    ):
        raise DistillError(f"{folder / MANIFEST_NAME}: its files are not in order, uneven or too long; get it again")
    needed = manifest.files[: -(-steps // lengths[0])]
    return StoredLogits(
        folder=folder, manifest=manifest, arrays=tuple(_open(folder, file, manifest) for file in needed)
    )


def _open(folder: Path, file: LogitsFile, manifest: LogitsManifest) -> np.ndarray:
    path = folder / file.name
    _require_plain(path)
    shape = (file.steps * manifest.batch_size, manifest.teacher.num_classes)
    try:
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError, TypeError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise DistillError(f"{path}: no array file: {error}") from error
    if array.dtype != np.float16 or array.shape != shape:
        raise DistillError(f"{path}: holds {array.dtype} {array.shape}, expected float16 {shape}")
    if (length := path.stat().st_size) != array.offset + array.nbytes:
        raise DistillError(
            f"{path}: {counted(length, 'byte')}, expected {array.offset + array.nbytes}; get the labels again"
        )
    _require_digest(path, file)
    rows = max(1, (1 << 20) // shape[1])
    if not all(bool(np.isfinite(array[first : first + rows]).all()) for first in range(0, len(array), rows)):
        raise DistillError(f"{path}: holds a logit that is no finite number; get the labels again")
    return array


def _require_plain(path: Path) -> None:
    if not is_plain(path):
        raise DistillError(f"{path}: is missing or no regular file; get the labels again")


def _require_digest(path: Path, file: LogitsFile) -> None:
    _require_plain(path)
    try:
        digest = file_digest(path)
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror}") from error
    if digest != file.sha256:
        raise DistillError(f"{path}: sha256 is {digest}, the manifest says {file.sha256}; get the labels again")


def require_same_view(folder: Path, held: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Check that stored logits are of the view ``wanted``; newer keys of ``augment`` have their defaults."""
    try:
        augment = AugmentConfig.model_validate(held.get("augment")).model_dump(mode="json")
    except ValidationError as error:
        raise DistillError(f"{folder / MANIFEST_NAME}: view.augment: {describe(error, AugmentConfig)}") from error
    require_same(folder, "a view with", held | {"augment": augment}, wanted)


def require_same(folder: Path, what: str, held: Any, wanted: Any) -> None:
    """Check that a property of stored logits, ``held``, is that of the run, ``wanted``."""
    if held == wanted:
        return
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in sorted(held.keys() | wanted.keys()):
            require_same(folder, f"{what} {key}", held.get(key), wanted.get(key))
        return
    if isinstance(held, float) and isinstance(wanted, float) and math.isclose(held, wanted, rel_tol=1e-6):
        return
    raise DistillError(f"{folder}: the stored logits are of {what} {held}, this run has {wanted}; label again")


def open_stored(config: TeacherConfig, set_id: str) -> LogitsManifest | None:
    """Read the manifest of the stored logits that ``config`` names, if any."""
    if config.logits is None:
        return None
    manifest = read_manifest(config.logits)
    held = manifest.teacher
    require_same(config.logits, "the set", manifest.set_id, set_id)
    require_same(config.logits, "a teacher with arch", held.arch, config.arch)
    require_same(config.logits, "a teacher with num_classes", held.num_classes, config.num_classes)
    for name, asked, stored in (("mean", config.mean, held.mean), ("std", config.std, held.std)):
        if asked is not None:
            require_same(config.logits, f"a teacher with {name}", stored, list(asked))
    return manifest


def describe_teacher(teacher: Network) -> TeacherInfo:
    """Return what a manifest of stored logits says of ``teacher``."""
    return TeacherInfo(
        arch=teacher.arch,
        sha256=teacher.sha256,
        num_classes=teacher.num_classes,
        mean=list(teacher.mean),
        std=list(teacher.std),
        classes=list(teacher.classes),
    )
