"""Read data sets of the user: objects with ``__len__`` and ``__getitem__``, such as those of torchvision."""

import dataclasses
import hashlib
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.data.image_reader import Work, in_threads, naming
from distill.errors import DistillError
from distill.runtime.device import free_memory
from distill.user_code import name_of, user_code
from manifests.format.digest import pixel_digest
from manifests.support.console import progress_bar
from manifests.untrusted.decode import MAX_PIXELS, Pixels

T = TypeVar("T")
_FORM = "expected RGB as uint8 of shape (height, width, 3)"


@runtime_checkable
class MapDataset(Protocol):
    """A map-style data set: item i is an image, or a pair of an image and its label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetImages:
    """All images of a data set, in memory."""

    samples: Tensor  # uint8 (n, size, size, 3), RGB
    digests: tuple[bytes, ...]  # SHA-256 of each image's pixels
    sha256: str  # in hex, of size and digests: it is the identity of the images
    where: str  # the class of the data set, for messages


def read_images(dataset: MapDataset) -> DatasetImages:
    """Read all images of a data set, which must be square and of one size, into memory."""
    (where, n), digests = _described(dataset), []
    samples = np.empty((0, 0, 0, 3), dtype=np.uint8)
    for index, item in _items(dataset, where, n):
        image = _pixels(item, f"{where}[{index}]", "return only the image, as uint8 (size, size, 3)")
        if index == 0:
            height, width = image.shape[:2]
            if height != width:
                fault = f"an image of {width}×{height} px is not square"
                raise DistillError(f"{where}[0]: {fault}; crop the images to squares")
            if (needed := n * image.nbytes) > (free := free_memory()):
                found = f"its images need {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free"
                raise DistillError(f"{where}: {found}; write the images to a patch set with patchgen pack")
            samples = np.empty((n, *image.shape), dtype=np.uint8)
        if image.shape != samples.shape[1:]:
            found = (
                f"has {image.shape[1]}×{image.shape[0]} px, but image 0 has {samples.shape[2]}×{samples.shape[1]} px"
            )
            raise DistillError(f"{where}[{index}]: {found}; resize the images to one size")
        samples[index] = image
        digests.append(pixel_digest(image))
    sha256 = hashlib.sha256(f"{samples.shape}".encode() + b"".join(digests)).hexdigest()
    return DatasetImages(samples=torch.from_numpy(samples), digests=tuple(digests), sha256=sha256, where=where)


class LabelledReader:
    """Reads the images and the labels of a data set of pairs (image, class number)."""

    def __init__(self, dataset: MapDataset, where: str | None = None) -> None:
        """Check a data set. One with a name ``where`` for messages is ours, so threads may read it."""
        self.where, self.n = _described(dataset) if where is None else (where, len(dataset))
        self._threaded = where is not None
        self.labels: dict[int, int] = {}  # of the images that were read, by position
        self._dataset = dataset

    def __call__(self, positions: Iterable[int], work: Work[T], /) -> Iterator[T]:
        """Yield the results of ``work`` for each image, uint8 (height, width, 3)."""

        def read(position: int, _: object = None) -> T:
            with user_code(place := f"{self.where}[{position}]"):
                item = self._dataset[position]
            pixels, self.labels[position] = _labelled(item, place)
            with naming(place):
                return work(position, pixels)

        return in_threads(positions, lambda _: None, read) if self._threaded else map(read, positions)


def _labelled(item: Any, place: str) -> tuple[Pixels, int]:
    """Return the image and the class number, counted from 0, of an item of a data set."""
    try:
        image, label = item
        number = operator.index(label)
    except Exception as error:  # also of the user's objects
        found = f"is {_kind(item)}, expected a pair of an image and a class number"
        raise DistillError(f"{place}: {found}; return (image, label)") from error
    if not 0 <= number < 10**9:
        found = f"the label is {str(number)[:40]}, expected a class number from 0"
        raise DistillError(f"{place}: {found}; correct the labels")
    return _pixels(image, place, "return PIL images or arrays, without a transform to float"), number


def _described(dataset: MapDataset) -> tuple[str, int]:
    """Return the name of a data set for messages, and its length."""
    where = f"data set {name_of(dataset)}"
    if not isinstance(dataset, MapDataset):
        found = "has no __len__ and __getitem__, expected a path or a map-style data set"
        raise DistillError(f"{where}: {found}; give a folder, a patch set or a data set")
    with user_code(where):
        n = len(dataset)
    if not n:
        raise DistillError(f"{where}: contains no image; use a data set with images")
    return where, n


def _items(dataset: MapDataset, where: str, n: int) -> Iterator[tuple[int, Any]]:
    with progress_bar("images of the data set", n) as update:
        for index in range(n):
            with user_code(f"{where}[{index}]"):
                item = dataset[index]
            yield index, item
            update(index + 1)


def class_names(dataset: object) -> tuple[str, ...]:
    """Return the class names in the attribute ``classes`` of a data set, or () if it has none."""
    with user_code(f"data set {name_of(dataset)}: classes"):
        names: Any = getattr(dataset, "classes", ())
        is_sequence = isinstance(names, MapDataset) and not isinstance(names, str | Mapping)
        listed: tuple[Any, ...] = tuple(names) if is_sequence else ()
    return tuple(map(str, listed)) if all(isinstance(name, str) for name in listed) else ()


def _pixels(value: Any, where: str, action: str) -> Pixels:
    array: npt.NDArray[Any] = np.empty(0, dtype=object)
    if not isinstance(value, tuple | list):
        with user_code(where):  # a lazy image of Pillow is decoded here, and some tensors are no arrays
            array = np.asarray(value)
    if array.ndim == 3 and array.shape[0] * array.shape[1] > MAX_PIXELS:
        found = f"has {array.shape[1]}×{array.shape[0]} px, expected at most {MAX_PIXELS} pixels"
        raise DistillError(f"{where}: the image {found}; scale it down")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DistillError(f"{where}: is {_kind(value)}, {_FORM}; {action}")
    return np.ascontiguousarray(array)


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} values"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", "")
    mode = getattr(value, "mode", None)  # of a PIL image
    detail = f" {dtype} of shape {tuple(shape)}" if shape is not None else f" of mode {mode}" if mode else ""
    return f"{type(value).__name__}{detail}"
