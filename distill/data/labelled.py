"""Labelled images in memory: every form that ``manifests.foreign`` finds, decoded to one size."""

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

from distill.errors import DistillError
from manifests.errors import PatchSetError
from manifests.foreign.image_data import ImageData, find_images, find_labelled
from manifests.foreign.image_files import StoredImage, pixels_of, read_stored
from manifests.foreign.listing import Split
from manifests.format.digest import pixel_digest
from manifests.support.counts import counted
from manifests.support.files import name_as_text
from manifests.untrusted.decode import Pixels

FORMS = (
    "CIFAR's binary or Python files, a folder with one sub-folder of images a class, "
    "or WebDataset tars whose samples have an image and .cls"
)
_KIND: dict[Split, str] = {"train": "training", "test": "evaluation"}
_CHUNK = 256
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images of one split: ``images`` uint8 (N, H, W, 3), RGB; ``labels`` int64 (N,), classes counted from 0.

    ``names`` are those of the classes, by number, as far as they are known. ``numbered`` tells whether the data
    itself gives each image a class number; else a label is the place of a class folder among the others.
    ``digests`` has the SHA-256 of each image's pixels before it was resized; ``sha256``, in hex, is over these
    and the labels as they were read. ``where`` says what was read.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()
    numbered: bool = True
    digests: tuple[bytes, ...] = ()
    sha256: str = ""
    resized: bool = False
    where: str = ""

    def __post_init__(self) -> None:
        # Names of folders may hold bytes that are no text, and these enter JSON and HTML.
        object.__setattr__(self, "names", tuple(map(name_as_text, self.names)))

    @property
    def size(self) -> int:
        """Pixels a side; images are square."""
        return self.images.shape[1]

    def __str__(self) -> str:
        """Return how many images of how many classes were found, and where."""
        classes = len(self.labels.unique())
        resized = f", resized to {self.size} px" if self.resized else ""
        return f"{counted(len(self.labels), 'image')} of {counted(classes, 'class')} in {self.where}{resized}"


def require_data(path: Path, split: Split = "test") -> None:
    """Check that ``path`` exists."""
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise DistillError(f"{path}: no such {_KIND[split]} data; give {FORMS}")


def load_labelled(path: Path, size: int | None, split: Split = "test") -> LabelledImages:
    """Read the images and labels of a split. ``size`` in pixels: others are resized and center-cropped.

    Names say which split files and folders are of (see ``manifests.foreign.listing``); data without such names is of
    every split. Kinds of files that are left out are logged.
    """
    require_data(path, split)
    try:
        found = find_labelled(path, split)
        if found is None:
            raise DistillError(f"{path}: no {_KIND[split]} data in a known form; expected {FORMS}")
        if not found.images:
            raise DistillError(f"{path}: holds no sample; expected {FORMS}")
        data = _stack(found, list(_decoded(found.images, size)), path)
    except PatchSetError as error:
        raise DistillError(str(error)) from error
    except OSError as error:
        raise DistillError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    for line in found.notes:
        logger.info(line)
    return data


def count_images(path: Path) -> int:
    """Return how many training images lie in ``path``, with labels or without."""
    try:
        found = find_images(path)
    except (PatchSetError, OSError) as error:
        raise DistillError(f"{path}: cannot be read: {error}") from error
    if not found.images:
        raise DistillError(f"{path}: holds no image")
    return len(found.images)


def _decoded(images: Sequence[StoredImage], size: int | None) -> Iterator[tuple[Pixels, bytes, bool]]:
    """Yield each image at ``size``, the digest of its own pixels and whether it was resized.

    Threads decode some hundred at a time.
    """

    def decode(item: tuple[StoredImage, bytes | Pixels]) -> tuple[Pixels, bytes, bool]:
        pixels = pixels_of(item[1], item[0].where)
        fitted = _fit(pixels, size)
        return fitted, pixel_digest(pixels), fitted is not pixels

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), _CHUNK):
            part = images[start : start + _CHUNK]
            yield from pool.map(decode, [(image, read_stored(image)) for image in part])


def _fit(image: Pixels, size: int | None) -> Pixels:
    """Return ``image``, resized so that its short side is 8/7 of ``size`` and center-cropped, as for ImageNet."""
    if size is None or image.shape[:2] == (size, size):
        return image
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)
    resized = TF.center_crop(TF.resize(planes, [round(size * 8 / 7)], antialias=True), [size, size])
    fitted: Pixels = resized.permute(1, 2, 0).numpy()
    return fitted


def _stack(found: ImageData, decoded: list[tuple[Pixels, bytes, bool]], path: Path) -> LabelledImages:
    shapes = sorted({image.shape for image, *_ in decoded})
    if len(shapes) > 1:
        raise DistillError(
            f"{path}: images of {len(shapes)} sizes, such as {shapes[0][1]}×{shapes[0][0]}; give --size or data.size"
        )
    images, labels = np.stack([image for image, *_ in decoded]), np.array(found.labels, dtype=np.int64)
    state = hashlib.sha256(b"".join(digest for _, digest, _ in decoded))
    state.update(labels.data)
    return LabelledImages(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        sha256=state.hexdigest(),
        resized=any(resized for *_, resized in decoded),
        names=found.classes,
        numbered=found.numbered,
        digests=tuple(digest for _, digest, _ in decoded),
        where=found.where,
    )
