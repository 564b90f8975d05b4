"""Labelled images in the forms people have it: CIFAR's own files, image folders, WebDataset tars."""

import dataclasses
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from distill.data.tars import read_labelled
from distill.errors import DistillError
from manifests.archives import TAR_SUFFIXES, members_of
from manifests.cifar import class_names, read_cifar
from manifests.errors import PatchSetError
from manifests.files import name_as_text, read_regular_file
from manifests.images import decode_image

Split = Literal["train", "test"]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".bmp")
_ENDS = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
MAX_IMAGE_BYTES = 256 << 20
FORMS = (
    "CIFAR's binary or Python files, a folder with one sub-folder of images a class, "
    "or WebDataset tars whose samples have an image and .cls"
)
_KIND: dict[Split, str] = {"train": "training", "test": "evaluation"}
_WORDS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "val")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """``images`` uint8 (N, H, W, 3), RGB; ``labels`` int64 (N,), classes counted from 0; their names, if known."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Names of folders may hold bytes that are no text, and these enter JSON and HTML.
        object.__setattr__(self, "names", tuple(map(name_as_text, self.names)))

    @property
    def size(self) -> int:
        """Pixels a side; images are square."""
        return self.images.shape[1]

    def digest(self) -> str:
        """SHA-256 over pixels and labels, as hex."""
        state = hashlib.sha256(self.images.contiguous().numpy().data)
        state.update(self.labels.contiguous().numpy().data)
        return state.hexdigest()

    def require_classes(self, num_classes: int, where: Path) -> None:
        """Check that every label is a class of a network with ``num_classes`` outputs.

        Raises:
            DistillError: a label is not.
        """
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= num_classes:
            raise DistillError(
                f"{where}: labels run from {low} to {high}, expected 0 to {num_classes - 1}; "
                "use data with the network's classes"
            )


def require_data(path: Path, split: Split = "test") -> None:
    """Make sure that something is there to read.

    Raises:
        DistillError: nothing is.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise DistillError(f"{path}: no such {_KIND[split]} data; give {FORMS}")


def load_labelled(path: Path, size: int | None, split: Split = "test") -> LabelledImages:
    """Read the images and labels of a split. ``size`` in pixels: others are resized and centre-cropped.

    Where names say which split they are of (CIFAR's files, tars and folders whose names start with ``train``,
    ``test`` or ``val``), only those of ``split`` are read; else all there are.

    Raises:
        DistillError: nothing is there, it has no known form, is damaged, or sizes differ and ``size`` is None.
    """
    require_data(path, split)
    try:
        for reader in (_cifar, _tars, _image_folder):
            found = reader(path, size, split)
            if found is not None:
                return found
    except PatchSetError as error:
        raise DistillError(str(error)) from error
    except OSError as error:
        raise DistillError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    raise DistillError(f"{path}: no {_KIND[split]} data in a known form; expected {FORMS}")


def count_images(path: Path) -> int:
    """About how many training images lie in ``path``, with labels or without, in any form that can be packed.

    Raises:
        DistillError: there are none, or they cannot be read.
    """
    try:
        cifar = read_cifar(path, "train")
        if cifar is not None:
            return len(cifar[1])
        items = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        tars = _of_split([file for file in items if file.name.lower().endswith(TAR_SUFFIXES)], "train")
        names = [member.name for tar in tars for member in members_of(tar)] or [file.name for file in items]
    except (PatchSetError, tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise DistillError(f"{path}: cannot be read: {error}") from error
    count = sum(name.lower().endswith((*IMAGE_SUFFIXES, ".tif", ".tiff")) for name in names)
    if not count:
        raise DistillError(f"{path}: holds no image")
    return count


def _cifar(path: Path, size: int | None, split: Split) -> LabelledImages | None:
    found = read_cifar(path, split)
    if found is None:
        return None
    pixels, labels = found
    return _stack([_fit(image, size) for image in pixels], labels.tolist(), path, class_names(path))


def _of_split(items: list[Path], split: Split) -> list[Path]:
    """Those whose name begins with a word for ``split``; all of them where no name begins with any such word."""
    named = {word: [item for item in items if item.name.lower().startswith(_WORDS[word])] for word in _WORDS}
    return named[split] if any(named.values()) else items


def _tars(path: Path, size: int | None, split: Split) -> LabelledImages | None:
    if path.is_dir():
        files = [file for file in path.iterdir() if file.name.endswith(TAR_SUFFIXES) and file.is_file()]
        shards = sorted(_of_split(files, split))
    else:
        shards = [path] if path.name.endswith(TAR_SUFFIXES) and path.is_file() else []
    if not shards:
        return None
    images, labels = [], []
    try:
        for sample in (sample for shard in shards for sample in read_labelled(shard, _ENDS, MAX_IMAGE_BYTES)):
            where = f"{sample['__url__']}: sample {sample['__key__']}"
            image, label = _sample(sample, where)
            images.append(_fit(decode_image(image, where), size))
            labels.append(label)
    except PatchSetError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise DistillError(f"{path}: not a whole tar: {str(error) or type(error).__name__}; get it again") from error
    return _stack(images, labels, path)


def _sample(sample: dict[str, Any], where: str) -> tuple[bytes, int]:
    image = next((sample[suffix] for suffix in _ENDS if suffix in sample), None)
    if image is None or "cls" not in sample:
        held = ", ".join(sorted(key for key in sample if not key.startswith("_")))
        raise DistillError(f"{where}: holds {held or 'nothing'}, expected an image and .cls")
    text = sample["cls"].decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise DistillError(f"{where}: .cls is {text[:20]!r}, expected a class number counted from 0")
    return image, int(text)


def _image_folder(path: Path, size: int | None, split: Split) -> LabelledImages | None:
    if not path.is_dir():
        return None
    holders = {word: [path / name for name in names if _holds_folders(path / name)] for word, names in _WORDS.items()}
    if any(holders.values()) and not holders[split]:
        return None
    folder = holders[split][0] if holders[split] else path
    classes = sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    files = [
        (file, label)
        for label, each in enumerate(classes)
        for file in _files_below(each)
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    ]
    if not files:
        return None
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda item: _read(item[0], size), files))
    return _stack(images, [label for _, label in files], path, tuple(item.name for item in classes))


def _files_below(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise error

    return sorted(Path(root) / name for root, _, names in os.walk(folder, onerror=fail) for name in names)


def _holds_folders(path: Path) -> bool:
    """Whether ``path`` may be a split; a class may be called "train" as well, but holds images."""
    return path.is_dir() and any(item.is_dir() for item in path.iterdir())


def _read(file: Path, size: int | None) -> npt.NDArray[np.uint8]:
    try:
        data = read_regular_file(file, MAX_IMAGE_BYTES)
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


def _stack(
    images: Iterable[npt.NDArray[np.uint8]], labels: list[int], path: Path, names: tuple[str, ...] = ()
) -> LabelledImages:
    images = list(images)
    if not images:
        raise DistillError(f"{path}: holds no sample; expected {FORMS}")
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise DistillError(
            f"{path}: images of {len(shapes)} sizes, such as {shapes[0][1]}×{shapes[0][0]}; give --size or data.size"
        )
    return LabelledImages(images=torch.from_numpy(np.stack(images)), labels=torch.tensor(labels), names=names)
