"""Read labelled images into memory. ``manifests.foreign`` finds the images; this module decodes them to one size."""

import contextlib
import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from distill.data.datasets import MapDataset, labelled_items
from distill.errors import DistillError
from distill.user_code import name_of
from manifests.errors import PatchSetError
from manifests.foreign.image_data import ImageData, find_images, find_labelled
from manifests.foreign.image_files import StoredImage, pixels_of, read_stored
from manifests.foreign.listing import Split
from manifests.format.digest import pixel_digest
from manifests.support.counts import counted
from manifests.support.files import name_as_text
from manifests.untrusted.decode import Pixels

_TARS = "WebDataset tars whose samples have an image and .cls"
FORMS = f"CIFAR's binary or Python files, a folder with one subfolder of images for each class, or {_TARS}"
_KIND: dict[Split, str] = {"train": "training", "test": "evaluation"}
_CHUNK = 256
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images of one split, and their labels."""

    images: Tensor  # uint8 (N, H, W, 3), RGB
    labels: Tensor  # int64 (N,), classes counted from 0
    names: tuple[str, ...] = ()  # of the classes, by number; empty if unknown
    numbered: bool = True  # whether the data has class numbers; else a label is the index of a class folder
    digests: tuple[bytes, ...] = ()  # SHA-256 of each image's pixels before resizing
    sha256: str = ""  # in hex, of the digests and of the labels as read
    resized: bool = False
    where: str = ""  # path or description of the data, for messages

    @property
    def size(self) -> int:
        """The width of an image in pixels, which is also the height."""
        return self.images.shape[1]

    def __str__(self) -> str:
        """Return the number of images, the number of classes and the location in one line."""
        classes = len(self.labels.unique())
        resized = f", resized to {self.size} px" if self.resized else ""
        return f"{counted(len(self.labels), 'image')} of {counted(classes, 'class')} in {self.where}{resized}"


def require_data(path: Path, split: Split = "test") -> None:
    """Raise DistillError if ``path`` does not exist. The message says for which ``split`` the data is."""
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise DistillError(f"{path}: the {_KIND[split]} data does not exist; give the path of {FORMS}")


def load_labelled(path: Path | MapDataset, size: int | None, split: Split = "test") -> LabelledImages:
    """Read the images and labels of a split. Images of another size than ``size`` px are resized and center-cropped.

    With ``size`` None, no image is resized. Names of files and folders determine the split of an image, as described
    in ``manifests.foreign.listing``. If no name contains a split, all images belong to every split. A data set of the
    user is one split.
    """
    option = "--size" if split == "test" else "data.size"
    if not isinstance(path, Path):
        return _load_dataset(path, size, option)
    require_data(path, split)
    with _read_errors(path):
        found = find_labelled(path, split)
        if found is None:
            raise DistillError(f"{path}: contains no {_KIND[split]} data in a known form; give the path of {FORMS}")
        if not found.images:
            raise DistillError(f"{path}: contains no image with a label; give the path of {FORMS}")
        data = _stack(found, list(_decoded(found.images, size)), path, option)
    for line in found.notes:
        logger.info(line)
    return data


def _load_dataset(dataset: MapDataset, size: int | None, option: str) -> LabelledImages:
    """Read a data set of pairs (image, label). Its attribute ``classes``, as in torchvision, has the class names."""
    decoded, labels, where = [], [], f"data set {name_of(dataset)}"
    for pixels, label in labelled_items(dataset):
        fitted = _fit(pixels, size)
        decoded.append((fitted, pixel_digest(pixels), fitted is not pixels))
        labels.append(label)
    names = getattr(dataset, "classes", ())
    named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    found = ImageData(images=(), where=where, labels=tuple(labels), classes=tuple(names) if named else ())
    return _stack(found, decoded, where, option)


def count_images(path: Path) -> int:
    """Return the number of training images in the folder or file ``path``, with or without labels."""
    with _read_errors(path):
        found = find_images(path)
    if not found.images:
        raise DistillError(f"{path}: contains no image; give the path of training images")
    return len(found.images)


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Convert an error that occurs while reading images in ``path`` to a DistillError of one line."""
    try:
        yield
    except PatchSetError as error:
        raise DistillError(str(error)) from error
    except OSError as error:
        reason = error.strerror or error
        raise DistillError(f"{error.filename or path}: cannot be read: {reason}; check its permissions") from error


def _decoded(images: Sequence[StoredImage], size: int | None) -> Iterator[tuple[Pixels, bytes, bool]]:
    """Yield each image's pixels at ``size`` px, the SHA-256 of its original pixels, and whether it was resized."""

    def decode(image: StoredImage, data: bytes | Pixels) -> tuple[Pixels, bytes, bool]:
        pixels = pixels_of(data, image.where)
        fitted = _fit(pixels, size)
        return fitted, pixel_digest(pixels), fitted is not pixels

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), _CHUNK):
            part = images[start : start + _CHUNK]
            yield from pool.map(decode, part, map(read_stored, part))


def _fit(image: Pixels, size: int | None) -> Pixels:
    """Resize an image so that the short side is 8/7 of ``size`` px, and crop the center to ``size`` px."""
    if size is None or image.shape[:2] == (size, size):
        return image
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)
    resized = TF.center_crop(TF.resize(planes, [round(size * 8 / 7)], antialias=True), [size, size])
    fitted: Pixels = resized.permute(1, 2, 0).numpy()
    return fitted


def _stack(
    found: ImageData, decoded: list[tuple[Pixels, bytes, bool]], path: Path | str, option: str
) -> LabelledImages:
    shapes = sorted({image.shape for image, *_ in decoded})
    if len(shapes) > 1:
        (height, width, _), (tall, wide, _) = shapes[:2]
        sizes = f"{len(shapes)} sizes, such as {width}×{height} px and {wide}×{tall} px"
        raise DistillError(f"{path}: contains images of {sizes}; set one size in pixels with {option}")
    labels = np.array(found.labels, dtype=np.int64)
    digests = tuple(digest for _, digest, _ in decoded)
    return LabelledImages(
        images=torch.from_numpy(np.stack([image for image, *_ in decoded])),
        labels=torch.from_numpy(labels),
        sha256=hashlib.sha256(b"".join(digests) + labels.tobytes()).hexdigest(),
        resized=any(resized for *_, resized in decoded),
        names=tuple(map(name_as_text, found.classes)),  # they enter JSON and HTML, so they must be text
        numbered=found.numbered,
        digests=digests,
        where=found.where,
    )
