"""Read the files of CIFAR-10 and CIFAR-100: binary records, or pickled arrays.

The unpickler runs no code of a pickle, see https://docs.python.org/3/library/pickle.html#restricting-globals.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DECODE_ERRORS, PatchSetError, unreadable
from manifests.support.counts import counted
from manifests.support.files import read_regular_file

PIXELS = 3 * 32 * 32
MAX_FILE_BYTES = 1 << 28  # the largest file, CIFAR-100's training images, has 154 MB
MAX_NAMES_BYTES = 1 << 20
MAX_CLASSES, MAX_NAME_BYTES = 1000, 100
MAX_OPERATIONS = 1_000_000  # in a pickle; CIFAR-100's training images need 300,000
_MAX_SIDE = 1 << 31
_ARRAY_NAMES = frozenset({"_reconstruct", "_frombuffer", "ndarray", "dtype"})

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_BINARIES = tuple(f"{name}.bin" for name in _BATCHES)
# The files of a split, and the number of label bytes of a record or the key of the labels in a pickled dict.
_FORMS: dict[str, dict[tuple[str, ...], int | bytes]] = {
    "test": {("test_batch.bin",): 1, ("test.bin",): 2, ("test_batch",): b"labels", ("test",): b"fine_labels"},
    "train": {_BINARIES: 1, ("train.bin",): 2, _BATCHES: b"labels", ("train",): b"fine_labels"},
}

# Folders in the archives of the two data sets. torchvision's ``root`` is the folder above them.
ROOTS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "cifar-100-python.tar.gz", "cifar-100-binary.tar.gz")


def cifar_files(path: Path, split: str) -> list[Path] | None:
    """Return CIFAR's files of the ``split`` "train" or "test". Return None if ``path`` has none of CIFAR's files.

    ``path`` is one of CIFAR's files, the folder of these files, or its parent folder (torchvision's ``root``).
    """
    if path.is_file():
        if path.name in ARCHIVES:
            raise PatchSetError(f"{path}: this is a packed archive; unpack it with tar -xf, and use the new folder")
        return [path] if _form(path) else None
    files = _files_in(path, split)
    if files is not None or not path.is_dir():
        return files
    roots = [path / root for root in ROOTS if (path / root).is_dir()]
    if len({root.name.startswith("cifar-100") for root in roots}) > 1:
        names = " and ".join(root.name for root in roots)
        raise PatchSetError(f"{path}: the folder contains {names}; use one of these folders")
    if roots:
        return _files_in(roots[0], split)
    if deeper := [folder for root in ROOTS for folder in path.glob(f"*/{root}")]:
        raise PatchSetError(f"{path}: CIFAR's files are in a subfolder; use {deeper[0]}")
    if archive := next((name for name in ARCHIVES if (path / name).is_file()), None):
        raise PatchSetError(f"{path}: the folder contains the packed archive {archive}; unpack it with tar -xf")
    return None


def _files_in(folder: Path, split: str) -> list[Path] | None:
    for names in _FORMS[split]:
        files = [folder / name for name in names]
        present = [file.is_file() for file in files]
        if all(present):
            return files
        if any(present):
            raise PatchSetError(f"{files[present.index(False)]}: this file of CIFAR is missing; download CIFAR again")
    return None


def read_cifar_file(file: Path) -> tuple[Pixels, Labels]:
    """Read one of CIFAR's files. Return its images, uint8 (N, 32, 32, 3), and its labels, int64 (N,)."""
    form = _form(file)
    if form is None:
        raise PatchSetError(f"{file}: this is not the name of a CIFAR file; use a file of CIFAR-10 or CIFAR-100")
    try:
        data = read_regular_file(file, MAX_FILE_BYTES)
    except OSError as error:
        raise unreadable(file, "the file", error, "download CIFAR again") from error
    try:
        planes, labels = _unpickled(data, form) if isinstance(form, bytes) else _records(data, form)
    except DECODE_ERRORS as error:
        is_explained = isinstance(error, ValueError | pickle.UnpicklingError)
        reason = error if is_explained else "its pickled data is corrupt"
        raise PatchSetError(f"{file}: this is not a CIFAR file: {reason}; download it again") from error
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels.astype(np.int64)


def _form(file: Path) -> int | bytes | None:
    forms = (pair for group in _FORMS.values() for pair in group.items())
    return next((form for names, form in forms if file.name in names), None)


def _records(data: bytes, label_bytes: int) -> tuple[Pixels, npt.NDArray[Any]]:
    """Return pixels, uint8 (N, 3072), and labels. If a record has two labels (CIFAR-100), return the finer label."""
    record = label_bytes + PIXELS
    if not data or len(data) % record:
        raise ValueError(f"it has {counted(len(data), 'byte')}, expected a multiple of {record} bytes")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _unpickled(data: bytes, key: bytes) -> tuple[Pixels, npt.NDArray[Any]]:
    value = unpickle(data)
    pixels, labels = to_array(value[b"data"]), to_array(value[key])
    has_labels = labels.dtype.kind in "iu" and labels.ndim == 1 and len(labels) > 0
    if not has_labels or pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        found = f"pixels are {pixels.dtype} {pixels.shape}, labels are {labels.dtype} {labels.shape}"
        raise ValueError(f"{found}, expected uint8 (N, {PIXELS}) and whole numbers (N,)")
    return pixels, labels


def class_names(path: Path) -> tuple[str, ...]:
    """Return CIFAR's class names from a file beside the image files. Return () if this file is missing or damaged."""
    folder = path if path.is_dir() else path.parent
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (folder / name).is_file():
            return tuple(read_regular_file(folder / name, MAX_NAMES_BYTES).decode("utf-8", "replace").split())
    for name, key in (("batches.meta", b"label_names"), ("meta", b"fine_label_names")):
        if (folder / name).is_file():
            return _pickled_names(read_regular_file(folder / name, MAX_NAMES_BYTES), key)
    return ()


def _pickled_names(data: bytes, key: bytes) -> tuple[str, ...]:
    try:
        names = unpickle(data)[key]
        if len(names) > MAX_CLASSES or max(map(len, names)) > MAX_NAME_BYTES:
            return ()
        return tuple(name.decode("utf-8", "replace") for name in names)
    except DECODE_ERRORS:
        return ()


def unpickle(data: bytes) -> Any:
    """Return the value in a pickle: plain Python values, and objects that ``to_array`` converts to arrays."""
    for count, (_, argument, _) in enumerate(pickletools.genops(data)):
        if count > MAX_OPERATIONS or (isinstance(argument, int) and abs(argument) >> 32):
            raise ValueError("its pickled data is corrupt")
    return _Unpickler(data).load()


def to_array(value: Any) -> npt.NDArray[Any]:
    """Convert an unpickled list to int64; an array of 1-byte items to uint8, and any other to signed integers."""
    if isinstance(value, list) and all(type(item) is int for item in value):
        return np.array(value, dtype=np.int64)
    match value.parts if isinstance(value, _Array) else None:
        case (_, tuple() as shape, _, _, bytes() | bytearray() | str() as data):  # version, shape, dtype, order, data
            pass
        case (bytes() | bytearray() as data, _, tuple() as shape, _):  # data, dtype, shape, order
            pass
        case _:
            raise ValueError("pixels or labels are neither an array nor a list of integers")
    if len(shape) > 2 or not all(type(side) is int and 0 <= side <= _MAX_SIDE for side in shape):
        raise ValueError(f"an array has the shape {str(shape)[:60]}, expected (N,) or (N, {PIXELS})")
    raw = data.encode("latin1") if isinstance(data, str) else data
    num_items = math.prod(shape)
    kind = {1: "u1", 2: "<i2", 4: "<i4", 8: "<i8"}[len(raw) // num_items if num_items else 0]
    return np.frombuffer(raw, dtype=kind).reshape(shape)


class _Array:
    """The arguments or the state of a pickled NumPy object. NumPy would trust untrusted shapes and addresses."""

    def __init__(self, *parts: object) -> None:
        self.parts: Any = parts

    def __setstate__(self, state: object) -> None:
        self.parts = state


class _Unpickler(pickle._Unpickler):  # the unpickler in C allocates too much memory for a large index
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._bytes_left = len(data)

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _ARRAY_NAMES:
            return _Array
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        raise pickle.UnpicklingError(f"it contains the type {module}.{name}, expected only arrays and numbers")

    def _encode(self, text: str, encoding: str) -> bytes:
        """Convert a text to bytes. Old pickles store bytes as text. Refuse more text than the file has bytes."""
        self._bytes_left -= len(text)
        if self._bytes_left < 0:
            raise pickle.UnpicklingError("its pickled data is corrupt")
        return text.encode("latin1")
