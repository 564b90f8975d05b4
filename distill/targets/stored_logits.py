"""Stored logits: a folder with the logits of a teacher for every training step, in the format ``labels/1``.

For feature losses, the folder also contains features of the teacher.

The "view" of a run is the order and the augmentation of the patches. The view determines the batch of each step. A
file ``logits-NNNNNN.npy`` contains the logits of successive steps: float16 (steps × batch_size, columns). The first
columns are the classes; the columns of each feature follow. The file ``labels.json``, written last, is the manifest:
it declares patch set, teacher, view, features, and the SHA-256 of every file.
"""

import dataclasses
import hashlib
import math
import tokenize
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from distill.augment import AugmentConfig
from distill.errors import DistillError
from distill.models.pretrained import Interpolation
from distill.runtime.device import Precision
from distill.targets.teacher_config import TeacherConfig
from distill.weights.files import MeanTriple, StdTriple
from manifests.errors import DECODE_ERRORS, PatchSetError
from manifests.format.canonical_json import canonical_json, parse_json
from manifests.format.digest import file_digest
from manifests.support.files import is_plain, read_regular_file
from manifests.support.validation import describe

MANIFEST_NAME = "labels.json"
MAX_MANIFEST_BYTES = 1 << 24
FILE_BYTES = 32 << 20
_CREATE = "create stored logits for this run with distill make-logits"
_CORRUPT = "the stored logits are corrupt; download them again, or create them with distill make-logits"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, from_attributes=True)


class LogitsFile(_Part):
    """One array file with the logits of ``steps`` steps."""

    name: Annotated[str, Field(pattern=r"^logits-[0-9]{6}\.npy$")]
    steps: Annotated[int, Field(ge=1)]
    sha256: Digest


class TeacherInfo(_Part):
    """The teacher that computed the logits, and the normalization of its input."""

    arch: Annotated[str, Field(max_length=1000)]
    sha256: Digest
    num_classes: Annotated[int, Field(ge=2, le=100_000)]
    mean: Annotated[MeanTriple, Field(strict=False)]
    std: Annotated[StdTriple, Field(strict=False)]
    classes: Annotated[tuple[_Name, ...], Field(max_length=100_000, strict=False)] = ()
    size: Annotated[int, Field(ge=8, le=1024)] | None = None  # pixels, if not those of the batch
    interpolation: Interpolation = "bilinear"


class StoredFeature(_Part):
    """A feature of the teacher: the shape of the output of ``module`` for an image, as a feature loss compares it."""

    module: _Name
    shape: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2**31)], ...], Field(min_length=1, max_length=3, strict=False)
    ]

    def __str__(self) -> str:
        return f"{self.module} ({', '.join(map(str, self.shape))})"


class LogitsManifest(_Part):
    """The manifest of stored logits. A run on the stored logits must use the same patch set, teacher and view."""

    format: Literal["labels/1"]
    set_id: Digest
    teacher: TeacherInfo
    view: dict[str, Any]
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    precision: Precision
    features: Annotated[list[StoredFeature], Field(max_length=100)] = []
    files: Annotated[list[LogitsFile], Field(max_length=50_000)]
    environment: dict[str, str]

    def to_json(self) -> bytes:
        """Return the bytes of ``labels.json``."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True)) + b"\n"

    @property
    def sha256(self) -> str:
        """The SHA-256 of ``labels.json``, in hex."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def widths(self) -> list[int]:
        """The number of columns of the logits, and of each feature."""
        return [self.teacher.num_classes, *(math.prod(feature.shape) for feature in self.features)]

    @property
    def steps(self) -> int:
        """The number of steps that have logits."""
        return sum(file.steps for file in self.files)


def file_name(number: int) -> str:
    """Return the name of array file ``number``, counted from 0."""
    return f"logits-{number:06d}.npy"


def steps_per_file(batch_size: int, columns: int) -> int:
    """Return the number of steps in one array file: as many as fit into 32 MiB as float16, at least one."""
    return max(1, FILE_BYTES // (2 * batch_size * columns))


def read_manifest(folder: Path) -> LogitsManifest:
    """Read the manifest of the stored logits in a folder."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise DistillError(f"{folder}: {MANIFEST_NAME} is missing; create stored logits with distill make-logits")
    try:
        value = parse_json(read_regular_file(path, MAX_MANIFEST_BYTES), str(path))
        manifest = LogitsManifest.model_validate(value)
    except ValidationError as error:
        raise DistillError(f"{path}: {describe(error, LogitsManifest)}; {_CORRUPT}") from error
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror or error}; choose another folder") from error
    except PatchSetError as error:
        raise DistillError(str(error)) from error
    except ValueError as error:  # nested deeper than pydantic supports
        raise DistillError(f"{path}: {str(error).splitlines()[0]}; {_CORRUPT}") from error
    if not manifest.files:
        raise DistillError(f"{path}: the list 'files' is empty, expected at least one file; {_CORRUPT}")
    order = manifest.view.get("order")
    if not isinstance(order, dict) or order.get("batch_size") != manifest.batch_size:
        found = f"batch_size is {manifest.batch_size}, but view.order does not have the same batch_size"
        raise DistillError(f"{path}: {found}; {_CORRUPT}")
    return manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredLogits:
    """Verified stored logits, mapped into memory. Each of ``arrays`` is float16 (steps × batch_size, columns)."""

    folder: Path
    manifest: LogitsManifest
    arrays: tuple[np.ndarray, ...]

    def of_step(self, step: int) -> Tensor:
        """Return the logits, and then the features, of ``step``: float16 (batch_size, columns)."""
        size, per_file = self.manifest.batch_size, self.manifest.files[0].steps
        first = (step % per_file) * size
        return torch.from_numpy(self.arrays[step // per_file][first : first + size].copy())

    def require_unchanged(self) -> None:
        """Compute the SHA-256 of the files of ``arrays`` again. Raise DistillError if a file has changed."""
        for file in self.manifest.files[: len(self.arrays)]:
            _require_digest(self.folder / file.name, file)


def open_logits(folder: Path, manifest: LogitsManifest, steps: int) -> StoredLogits:
    """Verify the files with the logits of the first ``steps`` steps, and map the files into memory."""
    lengths, path = [file.steps for file in manifest.files], folder / MANIFEST_NAME
    if [file.name for file in manifest.files] != [file_name(i) for i in range(len(manifest.files))]:
        raise DistillError(f"{path}: files must be named {file_name(0)}, {file_name(1)} and so on; {_CORRUPT}")
    most = steps_per_file(manifest.batch_size, sum(manifest.widths))
    if len(set(lengths[:-1])) > 1 or lengths[-1] > lengths[0] or lengths[0] > most:
        expected = f"every file must have the same number of steps (the last may have fewer), at most {most}"
        raise DistillError(f"{path}: {expected}; {_CORRUPT}")
    arrays = tuple(_open(folder, file, manifest) for file in manifest.files[: -(-steps // lengths[0])])
    return StoredLogits(folder=folder, manifest=manifest, arrays=arrays)


def _open(folder: Path, file: LogitsFile, manifest: LogitsManifest) -> np.ndarray:
    path = folder / file.name
    _require_digest(path, file)
    shape = (file.steps * manifest.batch_size, sum(manifest.widths))
    try:
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r")
    except (*DECODE_ERRORS, tokenize.TokenError) as error:
        raise DistillError(f"{path}: is not a .npy file: {error}; {_CORRUPT}") from error
    if array.dtype != np.float16 or array.shape != shape:
        found = f"contains an array of {array.dtype} {array.shape}, expected float16 {shape}"
        raise DistillError(f"{path}: {found}; {_CORRUPT}")
    if (length := path.stat().st_size) != array.offset + array.nbytes:
        raise DistillError(f"{path}: has {length} bytes, expected {array.offset + array.nbytes}; {_CORRUPT}")
    rows = max(1, (1 << 20) // shape[1])
    if not all(bool(np.isfinite(array[first : first + rows]).all()) for first in range(0, len(array), rows)):
        raise DistillError(f"{path}: contains a logit that is not a finite number; {_CORRUPT}")
    return array


def _require_digest(path: Path, file: LogitsFile) -> None:
    if not is_plain(path):
        raise DistillError(f"{path}: {'is not a regular file' if path.exists() else 'is missing'}; {_CORRUPT}")
    try:
        digest = file_digest(path)
    except OSError as error:
        raise DistillError(f"{path}: cannot be read: {error.strerror}; choose another folder") from error
    if digest != file.sha256:
        raise DistillError(f"{path}: sha256 is {digest}, but the manifest declares {file.sha256}; {_CORRUPT}")


def require_same_view(folder: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Check that the ``stored`` view of the logits in ``folder`` equals the ``wanted`` view of a run."""
    try:
        augment = AugmentConfig.model_validate(stored.get("augment")).model_dump(mode="json")
    except ValidationError as error:
        path = folder / MANIFEST_NAME
        raise DistillError(f"{path}: view.augment: {describe(error, AugmentConfig)}; {_CORRUPT}") from error
    require_same(folder, "a run with", stored | {"augment": augment}, wanted)


def require_same(folder: Path, what: str, stored: Any, wanted: Any, action: str = _CREATE) -> None:
    """Check that ``stored``, from a manifest, equals ``wanted``. Error messages call the value ``what``."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in sorted(stored.keys() | wanted.keys()):
            name = f"{what} {key}" if what.endswith(" with") else f"{what}.{key}"
            require_same(folder, name, stored.get(key), wanted.get(key), action)
    elif isinstance(stored, float) and isinstance(wanted, float) and math.isclose(stored, wanted, rel_tol=1e-6):
        pass
    elif stored != wanted:
        found = f"the stored logits belong to {what} {stored}, but this run has {wanted}"
        raise DistillError(f"{folder}: {found}; {action}")


def open_stored(config: TeacherConfig, set_id: str) -> LogitsManifest | None:
    """Return the manifest of the stored logits, or None if no logits are set. Check the set and the teacher."""
    if config.logits is None:
        return None
    manifest = read_manifest(config.logits)
    require_same(config.logits, "the set", manifest.set_id, set_id)
    for name in ("arch", "num_classes", "mean", "std", "size", "interpolation"):
        if (wanted := getattr(config, name)) is not None:
            require_same(config.logits, f"a teacher with {name}", getattr(manifest.teacher, name), wanted)
    return manifest
