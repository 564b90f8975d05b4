"""A photo at many resolutions, four to the octave, so that a warp never shrinks or enlarges by much.

Each level is filtered as Pillow's antialiased bicubic resize does it, which is what the reference pipeline
resizes its crops with; a bilinear warp from the nearest level then is as sharp as that pipeline, at every scale.
Weights are whole multiples of 2**-14, so that every product and sum below is exact in float32, in any order.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

STEPS = 4
"""Levels an octave."""
_ROOTS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
_SMALLEST = 8
"""Pixels of the shorter side at which a pyramid ends."""
_ENLARGED = -STEPS
_LARGEST_TO_ENLARGE = 1 << 23
"""Pixels above which a photo gets no enlarged level, which would take four times its memory."""
_UNIT = 1 << 14
_SHARPNESS = -0.5
_BLOCK = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pyramid:
    """``levels[i]``, RGB uint8 (H, W, 3), is the photo shrunk by 2**(``numbers[i]`` / 4) or so, in both directions.

    Where patches enlarge a photo of at most 8 megapixels, there is a level -4 too, twice its size.
    """

    levels: tuple[Pixels, ...]
    numbers: tuple[int, ...]

    @cached_property
    def photo(self) -> Pixels:
        """The photo itself, level 0."""
        return self.levels[self.numbers.index(0)]

    @property
    def width(self) -> int:
        """Width of the photo in pixels."""
        return int(self.photo.shape[1])

    @property
    def height(self) -> int:
        """Height of the photo in pixels."""
        return int(self.photo.shape[0])

    def nearest(self, number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Positions in ``levels`` of the levels to read for the wanted level numbers."""
        finest = 0 if self.numbers[0] == 0 else 1  # the position of level 0
        positions = np.clip(number, 0, self.numbers[-1]) + finest
        return np.where(number < _ENLARGED // 2, 0, positions)


def build_pyramid(photo: Pixels, *, enlarge: bool) -> Pyramid:
    """Every level down to one of 8 pixels a side, each from the level an octave above it.

    ``enlarge`` says whether any patch may want level -4; see ``geometry.build_pyramids``.
    """
    height, width = photo.shape[:2]
    levels, number = {0: photo}, 0
    if enlarge and height * width <= _LARGEST_TO_ENLARGE:
        levels[_ENLARGED] = resize(photo, 2 * height, 2 * width)
    while True:
        number += 1
        scale = _ROOTS[number % STEPS] * 2.0 ** (number // STEPS)
        size = round(height / scale), round(width / scale)
        if min(size) < _SMALLEST:
            break
        levels[number] = resize(levels[max(number - STEPS, 0)], *size)
    numbers = tuple(sorted(levels))
    return Pyramid(levels=tuple(levels[number] for number in numbers), numbers=numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredPyramid:
    """Where a pyramid's levels lie in a file, one after the other from byte ``offset`` on."""

    offset: int
    shapes: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]


def store_pyramids(path: Path, pyramids: Sequence[Pyramid]) -> list[StoredPyramid]:
    """Write pyramids into a file that several processes can map, so that they share one copy."""
    stored = []
    with path.open("wb") as file:
        for pyramid in pyramids:
            shapes = tuple(level.shape for level in pyramid.levels)
            stored.append(StoredPyramid(offset=file.tell(), shapes=shapes, numbers=pyramid.numbers))
            for level in pyramid.levels:
                file.write(np.ascontiguousarray(level).data)
    return stored


def map_pyramids(path: Path, stored: Sequence[StoredPyramid]) -> tuple[Pyramid, ...]:
    """The pyramids in a file of ``store_pyramids``, read-only; the file may be deleted while they are mapped."""
    if not stored:
        return ()
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    pyramids = []
    for one in stored:
        ends = np.cumsum([one.offset, *(math.prod(shape) for shape in one.shapes)]).tolist()
        parts = zip(ends[:-1], ends[1:], one.shapes, strict=True)
        # Plain arrays over the mapped pages: a memmap is an array subclass, and slower to hand to OpenCV.
        levels = tuple(np.asarray(whole[start:end]).reshape(shape) for start, end, shape in parts)
        pyramids.append(Pyramid(levels=levels, numbers=one.numbers))
    return tuple(pyramids)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """``image`` (H, W, 3) at another size, antialiased bicubic, first across and then down, as Pillow does it."""
    turned = cv2.transpose(image).reshape(image.shape[1], -1)
    across = _resize_rows(turned, width).reshape(width, *image.shape[::2])
    back = cv2.transpose(across).reshape(image.shape[0], -1)
    return _resize_rows(back, height).reshape(height, width, image.shape[2])


def _resize_rows(rows: Pixels, count: int) -> Pixels:
    """``rows`` (n, m) resampled to (count, m), a block of rows at a time as a product with a band of weights."""
    first, weights = _weights(len(rows), count)
    taps = weights.shape[1]
    out = np.empty((count, rows.shape[1]), dtype=np.uint8)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        low, high = first[start], first[end - 1] + taps
        band = np.zeros((end - start, high - low), dtype=np.float32)
        columns = (first[start:end] - low)[:, None] + np.arange(taps)
        np.put_along_axis(band, columns, weights[start:end].astype(np.float32), axis=1)
        sums = band @ rows[low:high].astype(np.float32)
        out[start:end] = np.clip(np.floor((sums + _UNIT / 2) * (1.0 / _UNIT)), 0, 255)
    return out


def _weights(n: int, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """First row and whole weights (count, taps), summing to 2**14, of each of ``count`` outputs of ``n`` rows.

    Only additions, products and quotients of float64: the same bits on every machine.
    """
    scale = n / count
    stretch = max(scale, 1.0)
    taps = min(math.ceil(4 * stretch) + 1, n)
    centre = (np.arange(count) + 0.5) * scale
    first = np.clip(np.floor(centre - 2 * stretch + 0.5).astype(np.int64), 0, n - taps)
    distance = np.abs((first[:, None] + np.arange(taps) + 0.5 - centre[:, None]) / stretch)
    weights = _bicubic(distance)
    weights = np.rint(weights / weights.sum(axis=1, keepdims=True) * _UNIT)
    largest = np.argmax(weights, axis=1)
    weights[np.arange(count), largest] += _UNIT - weights.sum(axis=1)
    return first, weights


def _bicubic(x: Floats) -> Floats:
    """Keys' cubic convolution kernel with a = -1/2 at |x| (IEEE Transactions on ASSP 29, 1981)."""
    near = ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _SHARPNESS
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
