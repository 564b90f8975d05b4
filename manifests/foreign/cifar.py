"""Read the files of CIFAR-10 and CIFAR-100: binary records, or pickled arrays.

No code of a pickle runs, and none of NumPy's: https://docs.python.org/3/library/pickle.html#restricting-globals.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DECODE_ERRORS, PatchSetError
from manifests.support.counts import counted
from manifests.support.files import read_regular_file

PIXELS = 3 * 32 * 32
MAX_FILE_BYTES = 1 << 28  # the largest of the files, CIFAR-100's training images, has 154 MB
MAX_NAMES_BYTES = 1 << 20
MAX_CLASSES, MAX_NAME_BYTES = 1000, 100
MAX_OPERATIONS = 1_000_000  # of a pickle; CIFAR-100's training images take 300,000, one for each label and file name
_MAX_SIDE = 1 << 31
_ARRAY_NAMES = frozenset({"_reconstruct", "_frombuffer", "ndarray", "dtype"})

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
# The files of a split, and the number of label bytes of a record or the key of the labels in a pickled dict.
_FORMS: dict[str, dict[tuple[str, ...], int | bytes]] = {
    "test": {("test_batch.bin",): 1, ("test.bin",): 2, ("test_batch",): b"labels", ("test",): b"fine_labels"},
    "train": {
        tuple(f"{name}.bin" for name in _BATCHES): 1,
        ("train.bin",): 2,
        _BATCHES: b"labels",
        ("train",): b"fine_labels",
    },
}

# Folders in the archives of the two data sets; torchvision's ``root`` is the folder above them.
ROOTS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "cifar-100-python.tar.gz", "cifar-100-binary.tar.gz")


def cifar_files(path: Path, split: str) -> list[Path] | None:
    """Return the files of the ``split``, ``train`` or ``test``, in a folder; or ``path`` itself if it is such a file.

    The folder may also be the parent of one of ``ROOTS``, as torchvision's ``root`` is.
    Return None if ``path`` holds no file of CIFAR's.
    """
    if path.is_file():
        if path.name in ARCHIVES:
            raise PatchSetError(f"{path}: is CIFAR's archive; unpack it (tar -xf) and give the folder it holds")
        return [path] if _form(path) else None
    files = _files_in(path, split)
    if files is not None or not path.is_dir():
        return files
    roots = [path / root for root in ROOTS if (path / root).is_dir()]
    if len({root.name.startswith("cifar-100") for root in roots}) > 1:
        raise PatchSetError(f"{path}: holds {' and '.join(root.name for root in roots)}; give one of them")
    if roots:
        return _files_in(roots[0], split)
    if deeper := [folder for root in ROOTS for folder in path.glob(f"*/{root}")]:
        raise PatchSetError(f"{path}: holds CIFAR's files further down; give {deeper[0]}")
    if archive := next((name for name in ARCHIVES if (path / name).is_file()), None):
        raise PatchSetError(f"{path}: holds {archive} alone; unpack it (tar -xf) and give the folder it holds")
    return None


def _files_in(folder: Path, split: str) -> list[Path] | None:
    for names in _FORMS[split]:
        files = [folder / name for name in names]
        there = [file.is_file() for file in files]
        if all(there):
            return files
        if any(there):
            raise PatchSetError(f"{files[there.index(False)]}: is missing beside {files[there.index(True)].name}")
    return None


def read_cifar_file(file: Path) -> tuple[Pixels, Labels]:
    """Return the images, uint8 (N, 32, 32, 3), and the labels, int64 (N,), of one file, whose name tells its form."""
    form = _form(file)
    if form is None:
        raise PatchSetError(f"{file}: is not named as a file of CIFAR-10 or CIFAR-100")
    try:
        data = read_regular_file(file, MAX_FILE_BYTES)
    except OSError as error:
        raise PatchSetError(f"{file}: cannot be read: {error.strerror}; download it again") from error
    try:
        planes, labels = _unpickled(data, form) if isinstance(form, bytes) else _records(data, form)
    except DECODE_ERRORS as error:
        raise PatchSetError(f"{file}: no CIFAR file: {error}; download it again") from error
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels.astype(np.int64)


def _form(file: Path) -> int | bytes | None:
    forms = (pair for group in _FORMS.values() for pair in group.items())
    return next((form for names, form in forms if file.name in names), None)


def _records(data: bytes, label_bytes: int) -> tuple[Pixels, npt.NDArray[Any]]:
    """Split records of labels, of which the last is the finest, and three planes of 32x32 pixels."""
    record = label_bytes + PIXELS
    if not data or len(data) % record:
        raise ValueError(f"{counted(len(data), 'byte')}, expected a multiple of {record}")
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _unpickled(data: bytes, key: bytes) -> tuple[Pixels, npt.NDArray[Any]]:
    value = unpickle(data)
    pixels, labels = to_array(value[b"data"]), to_array(value[key])
    if (
        labels.dtype.kind not in "iu"
        or labels.ndim != 1
        or not len(labels)
        or pixels.dtype != np.uint8
        or pixels.shape != (len(labels), PIXELS)
    ):
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, labels {labels.dtype} {labels.shape}")
    return pixels, labels


def class_names(path: Path) -> tuple[str, ...]:
    """Return the class names in the files beside CIFAR's images; empty if there are none, or damaged ones."""
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
        return ()  # classes are numbers then


def unpickle(data: bytes) -> Any:
    """Return the value in a pickle: plain Python values, and arrays for ``to_array``."""
    for count, (_, argument, _) in enumerate(pickletools.genops(data)):
        if count > MAX_OPERATIONS or (isinstance(argument, int) and abs(argument) >> 32):
            raise ValueError(f"more than {MAX_OPERATIONS} operations, or a number of more than 32 bits")
    return _Unpickler(data).load()


def to_array(value: Any) -> npt.NDArray[Any]:
    """Return an unpickled array or flat list of integers as an array: uint8, or signed if an item has more bytes."""
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
        raise ValueError("an array whose shape is not that of CIFAR's")
    raw = data.encode("latin1") if isinstance(data, str) else data
    num_items = math.prod(shape)
    kind = {1: "u1", 2: "<i2", 4: "<i4", 8: "<i8"}[len(raw) // num_items if num_items else 0]
    return np.frombuffer(raw, dtype=kind).reshape(shape)


class _Array:
    """Keeps the parts of a NumPy array or dtype. NumPy itself would trust a file's shapes, types and addresses."""

    def __init__(self, *parts: object) -> None:
        self.parts: Any = parts

    def __setstate__(self, state: object) -> None:
        self.parts = state


class _Unpickler(pickle._Unpickler):  # the one in C allocates as much memory as an index in the file says
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._bytes_left = len(data)

    def find_class(self, module: str, name: str) -> Any:
        """Return what replaces a part of an array."""
        if module.partition(".")[0] == "numpy" and name in _ARRAY_NAMES:
            return _Array
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def _encode(self, text: str, encoding: str) -> bytes:
        """Return a text as bytes, as old protocols write them: in all at most as many as the file has."""
        self._bytes_left -= len(text)
        if self._bytes_left < 0:
            raise pickle.UnpicklingError("it asks for more bytes than it holds")
        return text.encode("latin1")
