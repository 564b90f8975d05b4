"""Read labelled images. ``manifests.foreign`` finds the images; this module decodes them to one size.

Training images are kept in memory. Evaluation images are kept in memory if they need at most ``MAX_HELD_BYTES``, else
they are decoded again for each evaluation.
"""

import dataclasses
import hashlib
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.data.datasets import LabelledReader, MapDataset, class_names
from distill.data.fit import CenterFit, Fit
from distill.data.image_reader import ImageReader, StreamedImages, read_errors, stored_reader
from distill.data.torchvision_sets import PREFIX, TorchvisionSet, split_name
from distill.errors import DistillError
from distill.runtime.device import free_memory
from manifests.foreign.image_data import ImageData, find_images, find_labelled
from manifests.foreign.listing import Split
from manifests.format.digest import pixel_digest
from manifests.support.console import progress_bar
from manifests.support.counts import counted
from manifests.support.files import name_as_text
from manifests.untrusted.decode import Pixels

_TABLES = "WebDataset tars whose samples have an image and .cls, Parquet files, or a saved Hugging Face data set"
FORMS = f"CIFAR's binary or Python files, a folder with one subfolder of images for each class, {_TABLES}"
_KIND: dict[Split, str] = {"train": "training", "test": "evaluation"}
MAX_HELD_BYTES = 1 << 28  # of the pixels of evaluation images that stay in memory
Size = int | Fit | None  # to which images are resized; an int is a size in pixels
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images of one split, and their labels."""

    pixels: Tensor | StreamedImages  # uint8 (N, H, W, 3), RGB
    labels: Tensor  # int64 (N,), classes counted from 0
    names: tuple[str, ...] = ()  # of the classes, by number; empty if unknown
    numbered: bool = True  # whether the data has class numbers; else a label is the index of a class folder
    digests: tuple[bytes, ...] = ()  # SHA-256 of each image's pixels before resizing
    sha256: str = ""  # in hex, of the digests and of the labels as read
    resized: bool = False
    where: str = ""  # path or description of the data, for messages

    @property
    def images(self) -> Tensor:
        """All images in memory: uint8 (N, H, W, 3)."""
        if isinstance(self.pixels, Tensor):
            return self.pixels
        return torch.from_numpy(np.stack(list(self.pixels.read(range(len(self.labels))))))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        height, width = self.pixels.shape[-3:-1]
        return height, width

    @property
    def size(self) -> int:
        """The width of an image in pixels, which is also the height."""
        return self.shape[0]

    def batches(self, rows: int, numbers: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield the number and the images, uint8 (B, H, W, 3), of some batches of ``rows`` images."""
        spans = [range(number * rows, min((number + 1) * rows, len(self.labels))) for number in numbers]
        if isinstance(self.pixels, Tensor):
            yield from (
                (number, self.pixels[span.start : span.stop]) for number, span in zip(numbers, spans, strict=True)
            )
            return
        images = self.pixels.read(list(itertools.chain.from_iterable(spans)))
        for number, span in zip(numbers, spans, strict=True):
            yield number, torch.from_numpy(np.stack(list(itertools.islice(images, len(span)))))

    def __str__(self) -> str:
        """Return the number of images, the number of classes and the location in one line."""
        classes = len(self.labels.unique())
        resized = f", resized to {self.size} px" if self.resized else ""
        return f"{counted(len(self.labels), 'image')} of {counted(classes, 'class')} in {self.where}{resized}"


def require_data(path: Path, split: Split = "test") -> None:
    """Raise DistillError if ``path`` does not exist. The message says for which ``split`` the data is."""
    if str(path).startswith(PREFIX):
        path = split_name(str(path))[1]
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise DistillError(f"{path}: the {_KIND[split]} data does not exist; give the path of {FORMS}")


def load_labelled(path: Path | MapDataset, size: Size, split: Split = "test") -> LabelledImages:
    """Read the images and labels of a split. Images of another size than ``size`` px are resized and center-cropped.

    With ``size`` None, no image is resized; a ``Fit`` resizes and crops images in its own way. Names of files and
    folders determine the split of an image, as described in ``manifests.foreign.listing``. If no name contains a
    split, all images belong to every split. A data set of the user is one split.
    """
    if not isinstance(path, Path):
        return _load_dataset(LabelledReader(path), path, size, split)
    if str(path).startswith(PREFIX):
        name, root = split_name(str(path))
        if name not in ("CIFAR10", "CIFAR100"):
            dataset = TorchvisionSet(path, split)
            return _load_dataset(LabelledReader(dataset, dataset.where), dataset, size, split)
        path = root  # our reader of CIFAR's files runs no code of pickles
    require_data(path, split)
    with read_errors(path):
        found = find_labelled(path, split)
        if found is None:
            raise DistillError(f"{path}: contains no {_KIND[split]} data in a known form; give the path of {FORMS}")
        if not found.images:
            raise DistillError(f"{path}: contains no image with a label; give the path of {FORMS}")
        read = _read(stored_reader(found.images), len(found.images), size, path, split)
    for line in found.notes:
        logger.info(line)
    return read.labelled(found)


def _load_dataset(reader: LabelledReader, dataset: MapDataset, size: Size, split: Split) -> LabelledImages:
    """Read a data set of pairs (image, label). Its attribute ``classes``, as in torchvision, has the class names."""
    read = _read(reader, reader.n, size, reader.where, split)
    labels = tuple(reader.labels[position] for position in range(reader.n))
    classes = class_names(dataset)
    return read.labelled(ImageData(images=(), where=reader.where, labels=labels, classes=classes))


def count_images(path: Path) -> int:
    """Return the number of training images in the folder or file ``path``, with or without labels."""
    with read_errors(path):
        found = find_images(path)
    if not found.images:
        raise DistillError(f"{path}: contains no image; give the path of training images")
    return len(found.images)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Read:
    """The images of a split, without labels."""

    pixels: Tensor | StreamedImages
    digests: tuple[bytes, ...]
    resized: bool

    def labelled(self, found: ImageData) -> LabelledImages:
        """Return the images with the labels and the class names in ``found``."""
        labels = np.array(found.labels, dtype=np.int64)
        return LabelledImages(
            pixels=self.pixels,
            labels=torch.from_numpy(labels),
            sha256=hashlib.sha256(b"".join(self.digests) + labels.tobytes()).hexdigest(),
            resized=self.resized,
            names=tuple(map(name_as_text, found.classes)),  # they enter JSON and HTML, so they must be text
            numbered=found.numbered,
            digests=self.digests,
            where=found.where,
        )


def _read(reader: ImageReader, n: int, size: Size, where: Path | str, split: Split) -> _Read:
    """Decode all images once, for their digests. Keep their pixels at ``size`` px if ``MAX_HELD_BYTES`` permits."""
    fit, keep = CenterFit(size) if isinstance(size, int) else size, True

    def examine(_: int, pixels: Pixels) -> tuple[tuple[int, ...], Pixels | None, bytes]:
        fitted = None if not keep else pixels if fit is None else fit(pixels)
        return pixels.shape, fitted, pixel_digest(pixels)

    held, digests, shapes = np.empty((0, 0, 0, 3), dtype=np.uint8), [], set()
    with progress_bar("images to read", n) as update:
        for position, (shape, fitted, digest) in enumerate(reader(range(n), examine)):
            shapes.add(shape)
            digests.append(digest)
            if position == 0 and fitted is not None:
                keep = split == "train" or n * fitted.nbytes <= MAX_HELD_BYTES
                if keep and (needed := n * fitted.nbytes) > (free := free_memory()):
                    found = f"the images need {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free"
                    raise DistillError(f"{where}: {found}; set a smaller data.size, or use fewer images")
                held = np.empty((n if keep else 0, *fitted.shape), dtype=np.uint8)
            keep = keep and (fit is not None or len(shapes) == 1)
            if keep and fitted is not None:
                held[position] = fitted
            update(position + 1)
    if fit is None and len(shapes) > 1:
        (height, width, _), (tall, wide, _) = sorted(shapes)[:2]
        sizes = f"{len(shapes)} sizes, such as {width}×{height} px and {wide}×{tall} px"
        option = "--size" if split == "test" else "data.size"
        raise DistillError(f"{where}: contains images of {sizes}; set one size in pixels with {option}")
    every = tuple(digests)
    streamed = StreamedImages(reader=reader, fit=fit, shape=held.shape[1:], digests=every, where=where)
    as_stored = fit is None or (isinstance(fit, CenterFit) and shapes == {(fit.size, fit.size, 3)})
    return _Read(pixels=torch.from_numpy(held) if keep else streamed, digests=every, resized=not as_stored)
