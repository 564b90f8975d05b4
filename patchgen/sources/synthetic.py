"""Generate source images from a seed: noise, fractals, dead leaves.

Kind, size and seed determine every pixel on every machine, because only integer arithmetic and correctly rounded
float64 operations are used.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.support.files import write_atomically
from patchgen.errors import PatchgenError
from patchgen.pixels.exact_math import Ints, Pixels
from patchgen.pixels.randomness import to_unit

_STREAM = 2**32  # a stream of Philox that no recipe uses
_SMALLEST_LEAF, _LAYERS = 3.0, 5
_FRACTALS, _POINTS, _STEPS, _BURN_IN = 240, 4096, 48, 16
_FIXED = 16  # fraction bits of a fractal's coordinates


def make_source(kind: str, width: int, height: int, seed: int) -> Pixels:
    """Return an RGB uint8 image of shape (height, width, 3). ``kind`` is one of ``KINDS``."""
    return KINDS[kind](width, height, np.random.Philox(key=np.array([seed, _STREAM], dtype=np.uint64)))


def write_source(path: Path, pixels: Pixels) -> None:
    """Write RGB pixels as a PNG file. The ``set_id`` of a set depends on the bytes of this file."""
    if path.suffix.lower() != ".png":
        what = f"the name ends in {path.suffix!r}, expected .png, a format that preserves every pixel"
        raise PatchgenError(f"{path}: {what}; choose another --out")
    _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    write_picture(path, data.tobytes())


def write_picture(path: Path, data: bytes) -> None:
    """Write the bytes of an image file, completely or not at all."""
    try:
        write_atomically(path, data)
    except OSError as error:
        what = f"the file cannot be written: {error.strerror}"
        raise PatchgenError(f"{path}: {what}; choose another --out") from error


def _noise(width: int, height: int, philox: np.random.Philox) -> Pixels:
    """Return an image of uniform, independent random bytes, like the image "Noise" of Asano & Saeed (2023)."""
    num_bytes = width * height * 3
    words = philox.random_raw(-(-num_bytes // 8)).astype("<u8")
    return words.view(np.uint8)[:num_bytes].reshape(height, width, 3).copy()


def _dead_leaves(width: int, height: int, philox: np.random.Philox) -> Pixels:
    """Return an image of random discs. New discs cover old ones. Radii have a density like 1 / radius³.

    Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 2001.
    """
    largest = max(min(width, height) / 4, 2 * _SMALLEST_LEAF)
    # A logarithm may differ in the last bit between machines, so the mean area is rounded.
    mean_area = round(2 * math.pi * _SMALLEST_LEAF**2 * math.log(largest / _SMALLEST_LEAF))
    count = _LAYERS * width * height // mean_area + 1
    words = philox.random_raw(4 * count)
    draws = to_unit(words).reshape(count, 4)
    radii = _SMALLEST_LEAF / np.sqrt(1 - draws[:, 0] * (1 - (_SMALLEST_LEAF / largest) ** 2))
    xs, ys = np.floor(draws[:, 1] * width), np.floor(draws[:, 2] * height)
    colors = words.reshape(count, 4)[:, 3].astype("<u8").view(np.uint8).reshape(count, 8)[:, :3]
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    for radius, x, y, color in zip(radii.tolist(), xs.tolist(), ys.tolist(), colors, strict=True):
        left, right = max(int(x - radius), 0), min(int(x + radius) + 1, width)
        top, bottom = max(int(y - radius), 0), min(int(y + radius) + 1, height)
        across, down = np.arange(left, right) - x, np.arange(top, bottom) - y
        image[top:bottom, left:right][down[:, None] ** 2 + across**2 <= radius**2] = color
    return image


def _fractal(width: int, height: int, philox: np.random.Philox) -> Pixels:
    """Return a black image with attractors of random iterated function systems. Positions, sizes, colors are random.

    This is the chaos game of Barnsley (1988), with random maps like those of FractalDB (Kataoka et al., ACCV 2020).
    """
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for _ in range(_FRACTALS):
        points = _attractor(philox)
        draws = philox.random_raw(4)
        span = 16 + int(draws[0] % max(min(width, height) * 3 // 4, 1))
        low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
        scaled = (points - low) * span // np.maximum(high - low, 1)
        xs = scaled[0] + int(draws[1] % width) - span // 2
        ys = scaled[1] + int(draws[2] % height) - span // 2
        inside = (xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)
        image.reshape(-1, 3)[(ys * width + xs)[inside]] = draws[3:].astype("<u8").view(np.uint8)[:3] | 64
    return image


def _attractor(philox: np.random.Philox) -> Ints:
    """Return points (2, n) of the attractor of 2 to 8 random affine contractions, in units of 2**-16."""
    one = 1 << _FIXED
    count = 2 + int(philox.random_raw(1)[0] % 7)
    raw = (philox.random_raw(6 * count) >> np.uint64(64 - _FIXED - 1)).astype(np.int64).reshape(count, 6) - one
    linear, shift = raw[:, :4].reshape(count, 2, 2), raw[:, 4:]
    # A map is a contraction if the absolute sum of each row is below one; here it is at most 7/8.
    sums = np.maximum(np.abs(linear).sum(axis=2, keepdims=True), one)
    linear = linear * (one * 7 // 8) // sums
    table = np.concatenate([linear.reshape(count, 4), shift], axis=1).T.copy()
    x = y = np.zeros(_POINTS, dtype=np.int64)
    kept = []
    for step in range(_STEPS):
        chosen = (philox.random_raw(_POINTS) % np.uint64(count)).astype(np.intp)
        xx, xy, yx, yy, right, down = table.take(chosen, axis=1)
        x, y = (xx * x + xy * y >> _FIXED) + right, (yx * x + yy * y >> _FIXED) + down
        if step >= _BURN_IN:
            kept.append((x, y))
    return np.concatenate(kept, axis=1)


KINDS: dict[str, Callable[[int, int, Any], Pixels]] = {
    "noise": _noise,
    "fractal": _fractal,
    "dead-leaves": _dead_leaves,
}
