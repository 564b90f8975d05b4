"""Read the files of CIFAR-10 and CIFAR-100: binary records, or pickled arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DECODE_ERRORS, PatchSetError
from manifests.foreign.pickles import to_array, unpickle
from manifests.support.counts import counted
from manifests.support.files import read_regular_file

PIXELS = 3 * 32 * 32
MAX_FILE_BYTES = 1 << 28  # the largest of the files, CIFAR-100's training images, has 154 MB
MAX_NAMES_BYTES = 1 << 20
MAX_CLASSES, MAX_NAME_BYTES = 1000, 100

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
