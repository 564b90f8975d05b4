"""Resize a photo to many resolutions, four per octave. A patch is read from the nearest resolution.

The filter is Pillow's antialiased bicubic filter, which the code of the paper uses to resize crops. A bilinear warp
of the nearest level makes patches as sharp as those of the paper's code, at every scale.
Weights are multiples of 2**-14. Every product and sum below is therefore exact in float32, in any order.
"""

import dataclasses
import math
from functools import cached_property

import cv2
import numpy as np

from patchgen.pixels.exact_math import Floats, Ints, Pixels

STEPS = 4  # levels per octave
_ROOTS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
_SMALLEST = 8  # minimum of the shorter side of a level, in pixels
_ENLARGED = -STEPS
_LARGEST_TO_ENLARGE = 1 << 23  # pixels: a larger photo has no enlarged level, which needs four times the memory
_UNIT = 1 << 14
_SHARPNESS = -0.5
_BLOCK = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pyramid:
    """A photo at many resolutions. The level with number ``numbers[i]`` is ``levels[i]``, RGB uint8 (H, W, 3).

    Level k is the photo shrunk by about 2**(k / 4), so level 0 is the photo. Level -4 is twice as large as the photo;
    it exists if patches enlarge the photo and the photo has at most 8 megapixels.
    """

    levels: tuple[Pixels, ...]
    numbers: tuple[int, ...]

    @cached_property
    def photo(self) -> Pixels:
        """Return the photo, which is level 0."""
        return self.levels[self.numbers.index(0)]

    def nearest(self, number: Ints) -> Ints:
        """Return the index in ``levels`` of the level that is nearest to each ideal level number in ``number``."""
        indices = np.clip(number, 0, self.numbers[-1]) + self.numbers.index(0)
        return np.where(number < _ENLARGED // 2, 0, indices)


def build_pyramid(photo: Pixels, *, enlarge: bool) -> Pyramid:
    """Return the pyramid of a photo (H, W, 3), down to 8 pixels a side. ``enlarge`` adds level -4.

    Every level is resized from the level that is twice as large, or from the photo.
    """
    height, width = photo.shape[:2]
    levels, number = {0: photo}, 0
    if enlarge and height * width <= _LARGEST_TO_ENLARGE:
        levels[_ENLARGED] = resize(photo, 2 * height, 2 * width)
    while True:
        number += 1
        scale = _ROOTS[number % STEPS] * 2.0 ** (number // STEPS)
        extent = round(height / scale), round(width / scale)
        if min(extent) < _SMALLEST:
            break
        levels[number] = resize(levels[max(number - STEPS, 0)], *extent)
    numbers = tuple(sorted(levels))
    return Pyramid(levels=tuple(levels[number] for number in numbers), numbers=numbers)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Resize an image (H, W, 3) like Pillow: antialiased bicubic, first horizontally, then vertically."""
    transposed = cv2.transpose(image).reshape(image.shape[1], -1)
    resized = _resize_rows(transposed, width).reshape(width, *image.shape[::2])
    rows = cv2.transpose(resized).reshape(image.shape[0], -1)
    return _resize_rows(rows, height).reshape(height, width, image.shape[2])


def _resize_rows(rows: Pixels, count: int) -> Pixels:
    """Resample ``rows`` (n, m) to (count, m). A block of output rows is a matrix of weights times input rows."""
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


def _weights(n: int, count: int) -> tuple[Ints, Floats]:
    """Return the index of the first input row for each of ``count`` output rows, and the weights (count, taps).

    An output row is a weighted sum of ``taps`` of the ``n`` input rows. The weights are integers with the sum 2**14.
    Only float64 additions, products and quotients are used: these have the same bits on every machine.
    """
    scale = n / count
    stretch = max(scale, 1.0)
    taps = min(math.ceil(4 * stretch) + 1, n)
    center = (np.arange(count) + 0.5) * scale
    first = np.clip(np.floor(center - 2 * stretch + 0.5).astype(np.int64), 0, n - taps)
    distance = np.abs((first[:, None] + np.arange(taps) + 0.5 - center[:, None]) / stretch)
    weights = _bicubic(distance)
    weights = np.rint(weights / weights.sum(axis=1, keepdims=True) * _UNIT)
    largest = np.argmax(weights, axis=1)
    weights[np.arange(count), largest] += _UNIT - weights.sum(axis=1)
    return first, weights


def _bicubic(x: Floats) -> Floats:
    """Return the cubic convolution kernel of Keys with a = -1/2, at x ≥ 0 (IEEE Transactions on ASSP 29, 1981)."""
    near = ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _SHARPNESS
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
