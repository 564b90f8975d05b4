"""Labelled evaluation data in the forms people have it: CIFAR's own files, image folders, WebDataset tars."""

import dataclasses
import pickle
import re
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from distill.errors import TORN, DistillError
from distill.tars import read_samples
from manifests.images import decode_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".bmp")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
FORMS = (
    "CIFAR's binary or Python files, a folder with one sub-folder of images a class, "
    "or WebDataset tars whose samples have an image and .cls"
)
_CIFAR_BINARY = {"test_batch.bin": 1, "test.bin": 2}
_CIFAR_PYTHON = {"test_batch": b"labels", "test": b"fine_labels"}
_CIFAR_PIXELS = 3 * 32 * 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """``images`` uint8 (N, H, W, 3), RGB; ``labels`` int64 (N,), classes counted from 0."""

    images: Tensor
    labels: Tensor

    def require_classes(self, num_classes: int, where: Path) -> None:
        """Check that every label is a class of a network with ``num_classes`` outputs.

        Raises:
            DistillError: a label is not.
        """
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= num_classes:
            raise DistillError(
                f"{where}: labels run from {low} to {high}, expected 0 to {num_classes - 1}; "
                "use evaluation data with the teacher's classes"
            )


def load_labelled(path: Path, size: int | None) -> LabelledImages:
    """Read test images and labels. ``size`` in pixels: images of another size are resized and centre-cropped.

    Raises:
        DistillError: nothing is there, it has no known form, is damaged, or sizes differ and ``size`` is None.
    """
    if not path.exists():
        raise DistillError(f"{path}: no such evaluation data; give {FORMS}")
    for reader in (_cifar, _tars, _image_folder):
        found = reader(path, size)
        if found is not None:
            return found
    raise DistillError(f"{path}: evaluation data in no known form; expected {FORMS}")


def _cifar(path: Path, size: int | None) -> LabelledImages | None:
    candidates = [path] if path.is_file() else [path / name for name in (*_CIFAR_BINARY, *_CIFAR_PYTHON)]
    for file in candidates:
        if not file.is_file():
            continue
        if file.name in _CIFAR_BINARY:
            pixels, labels = _cifar_binary(file, _CIFAR_BINARY[file.name])
        elif file.name in _CIFAR_PYTHON:
            pixels, labels = _cifar_python(file, _CIFAR_PYTHON[file.name])
        else:
            continue
        planes = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images = [_fit(image, size) for image in planes]
        return _stack(images, labels.tolist(), path)
    return None


def _cifar_binary(file: Path, label_bytes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    data = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    record = label_bytes + _CIFAR_PIXELS
    if not len(data) or len(data) % record:
        raise DistillError(f"{file}: {len(data)} bytes, expected a multiple of {record}; download it again")
    rows = data.reshape(-1, record)
    labels = rows[:, label_bytes - 1]  # CIFAR-100: the coarse label, then the fine one
    return rows[:, label_bytes:], labels.astype(np.int64)


class _CifarUnpickler(pickle.Unpickler):
    """Reads CIFAR's Python files, which are pickles of arrays, and refuses to build anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Only what an array is made of."""
        root = module.split(".", 1)[0]
        if root == "numpy" and name in ("_reconstruct", "_frombuffer", "ndarray", "dtype"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _cifar_python(file: Path, label_key: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        with file.open("rb") as stream:
            value = _CifarUnpickler(stream, encoding="bytes").load()
        pixels, labels = np.asarray(value[b"data"]), np.asarray(value[label_key])
        good = labels.dtype.kind in "iu" and labels.ndim == 1 and len(labels) > 0
        if not good or pixels.dtype != np.uint8 or pixels.shape != (len(labels), _CIFAR_PIXELS):
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, labels {labels.dtype} {labels.shape}")
        return pixels, labels.astype(np.int64)
    except TORN as error:
        raise DistillError(f"{file}: no CIFAR file: {error}; download it again") from error


def _tars(path: Path, size: int | None) -> LabelledImages | None:
    if path.is_dir():
        shards = sorted(file for file in path.iterdir() if file.name.endswith(TAR_SUFFIXES) and file.is_file())
    else:
        shards = [path] if path.name.endswith(TAR_SUFFIXES) and path.is_file() else []
    if not shards:
        return None
    images, labels = [], []
    try:
        for sample in read_samples(shards):
            where = f"{sample['__url__']}: sample {sample['__key__']}"
            image, label = _sample(sample, where)
            images.append(_fit(decode_image(image, where), size))
            labels.append(label)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DistillError(f"{path}: not a whole tar: {str(error) or type(error).__name__}; get it again") from error
    return _stack(images, labels, path)


def _sample(sample: dict[str, Any], where: str) -> tuple[bytes, int]:
    image = next((sample[suffix[1:]] for suffix in IMAGE_SUFFIXES if suffix[1:] in sample), None)
    if image is None or "cls" not in sample:
        held = ", ".join(sorted(key for key in sample if not key.startswith("_")))
        raise DistillError(f"{where}: holds {held or 'nothing'}, expected an image and .cls")
    text = sample["cls"].decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise DistillError(f"{where}: .cls is {text[:20]!r}, expected a class number counted from 0")
    return image, int(text)


def _image_folder(path: Path, size: int | None) -> LabelledImages | None:
    if not path.is_dir():
        return None
    classes = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
    files = [
        (file, label)
        for label, folder in enumerate(classes)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    ]
    if not files:
        return None
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda item: _read(item[0], size), files))
    return _stack(images, [label for _, label in files], path)


def _read(file: Path, size: int | None) -> npt.NDArray[np.uint8]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DistillError(f"{file}: cannot be read: {error.strerror}") from error
    return _fit(decode_image(data, str(file)), size)


def _fit(image: npt.NDArray[np.uint8], size: int | None) -> npt.NDArray[np.uint8]:
    """``image`` itself, or its centre at ``size``: the short side becomes 8/7 of it, as for ImageNet."""
    if size is None or image.shape[:2] == (size, size):
        return image
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)
    resized = TF.center_crop(TF.resize(planes, [round(size * 8 / 7)], antialias=True), [size, size])
    fitted: npt.NDArray[np.uint8] = resized.permute(1, 2, 0).numpy()
    return fitted


def _stack(images: Iterable[npt.NDArray[np.uint8]], labels: list[int], path: Path) -> LabelledImages:
    images = list(images)
    if not images:
        raise DistillError(f"{path}: holds no sample; expected {FORMS}")
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise DistillError(
            f"{path}: images of {len(shapes)} sizes, such as {shapes[0][1]}×{shapes[0][0]}; give --size"
        )
    return LabelledImages(images=torch.from_numpy(np.stack(images)), labels=torch.tensor(labels))
