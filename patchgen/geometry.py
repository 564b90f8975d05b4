"""Where in the photo a patch lies: crop, resize, rotation, shear and centre crop as one affine warp.

The reference (Asano & Saeed 2023, arXiv 2112.00725, and its code) crops a square of half the short side,
takes a random resized crop of that at √2 × size, applies a random affine map and crops the centre. All are
affine, so one map leads from a pixel of the patch to a place in the photo, read once from an image pyramid.
"""

import dataclasses
import math
from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from patchgen.exactmath import cos_degrees, exp, floor_log2, quantise, sin_degrees
from patchgen.randomness import between
from patchgen.source import Pyramid

Floats = npt.NDArray[np.float64]

_ATTEMPTS = 10
_DRAW_CROP, _DRAW_ANGLE, _DRAW_SHEAR, _DRAW_INNER, _DRAW_SHAPE = 0, 2, 3, 4, 6

POSITION_BITS = 10
MATRIX_BITS = 24
OFFSET_BITS = 12
_POLYGON_BITS = 8


class Geometry(BaseModel):
    """Ranges from which each patch's place is drawn, uniformly unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    crop: Annotated[float, Field(gt=0, le=1, description="side of the first square, × the short side")]
    area: Annotated[tuple[float, float], Field(description="area of the second crop, × the first")]
    aspect: Annotated[tuple[float, float], Field(description="its width / height, uniform in logarithm")]
    oversize: Annotated[float, Field(ge=1, le=4, description="pixels it is resized to, × size, rounded down")]
    rotation: Annotated[float, Field(ge=0, le=180, description="± degrees")]
    shear: Annotated[float, Field(ge=0, le=80, description="± degrees, along x")]
    corners: Annotated[Literal["black", "photo"], Field(description="what lies beyond the second crop")]

    @model_validator(mode="after")
    def _ranges(self) -> "Geometry":
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area is {list(self.area)}, expected 0 < low ≤ high ≤ 1")
        if not 0.01 <= self.aspect[0] <= self.aspect[1] <= 100:
            raise ValueError(f"aspect is {list(self.aspect)}, expected 0.01 ≤ low ≤ high ≤ 100")
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placements:
    """The places of n patches. Lengths in photo pixels, angles in degrees, each array of shape (n,).

    ``x``, ``y`` are the left and top edge of the crop; pixel i covers [i, i + 1). ``matrix`` (n, 2, 3) maps a
    patch's pixel (column, row, 1) to pixel indices of pyramid ``level``. ``polygon`` (n, 4, 2) is the crop's
    outline in the patch, in pixel indices; ``clipped`` says whether a part of the patch lies outside it.
    """

    x: Floats
    y: Floats
    width: Floats
    height: Floats
    rotation: Floats
    shear: Floats
    level: npt.NDArray[np.int64]
    matrix: Floats
    polygon: Floats
    clipped: npt.NDArray[np.bool_]

    def columns(self) -> dict[str, npt.NDArray[np.generic]]:
        """The applied parameters, by the names they have in a shard's table."""
        return {
            "crop_x": self.x,
            "crop_y": self.y,
            "crop_width": self.width,
            "crop_height": self.height,
            "rotation": self.rotation,
            "shear": self.shear,
            "level": self.level,
        }


def place(geometry: Geometry, size: int, pyramid: Pyramid, draws: Floats) -> Placements:
    """Places for patches of ``size`` px from their draws, shape (n, ≥ 26) in [0, 1)."""
    outer = max(1, math.floor(geometry.crop * min(pyramid.width, pyramid.height)))
    left = np.floor(draws[:, _DRAW_CROP] * (pyramid.width - outer + 1))
    top = np.floor(draws[:, _DRAW_CROP + 1] * (pyramid.height - outer + 1))
    width, height = _shapes(geometry, outer, draws)
    x = quantise(left + draws[:, _DRAW_INNER] * (outer - width), POSITION_BITS)
    y = quantise(top + draws[:, _DRAW_INNER + 1] * (outer - height), POSITION_BITS)
    rotation = quantise(between(draws[:, _DRAW_ANGLE], -geometry.rotation, geometry.rotation), POSITION_BITS)
    shear = quantise(between(draws[:, _DRAW_SHEAR], -geometry.shear, geometry.shear), POSITION_BITS)

    side = math.floor(geometry.oversize * size)
    level = np.clip(floor_log2(np.sqrt(width * height) / side), 0, len(pyramid.levels) - 1)
    sine, cosine = sin_degrees(rotation), cos_degrees(rotation)
    slope = sin_degrees(shear) / cos_degrees(shear)
    # The affine map turns and shears the resized crop, M = R(rotation) · [[1, -slope], [0, 1]]; its
    # determinant is 1. A warp reads backwards, so it needs the inverse.
    forward = np.stack([cosine, -cosine * slope - sine, sine, -sine * slope + cosine], axis=1)
    inverse = np.stack([forward[:, 3], -forward[:, 1], -forward[:, 2], forward[:, 0]], axis=1)
    matrix = _matrices(inverse, np.stack([x, y, width, height], axis=1), size, side, level)
    polygon, clipped = _outlines(forward, inverse, size, side)
    return Placements(
        x=x,
        y=y,
        width=width,
        height=height,
        rotation=rotation,
        shear=shear,
        level=level,
        matrix=matrix,
        polygon=polygon,
        clipped=clipped,
    )


def _shapes(geometry: Geometry, outer: int, draws: Floats) -> tuple[Floats, Floats]:
    """Width and height of the second crop: the first of ten tries that fits, else the tenth, cut to fit."""
    shapes = draws[:, _DRAW_SHAPE : _DRAW_SHAPE + 2 * _ATTEMPTS]
    area = between(shapes[:, :_ATTEMPTS], *geometry.area) * (outer * outer)
    log_low, log_high = math.log(geometry.aspect[0]), math.log(geometry.aspect[1])
    # math.log may differ by an ulp between C libraries; 2**-40 is far above that, far below a pixel.
    low, high = (round(value * 2**40) / 2**40 for value in (log_low, log_high))
    aspect = exp(between(shapes[:, _ATTEMPTS:], low, high))
    widths, heights = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (widths <= outer) & (heights <= outer)
    fits[:, -1] = True
    chosen = np.argmax(fits, axis=1)
    rows = np.arange(len(chosen))
    smallest = 2.0**-POSITION_BITS
    return (
        np.clip(quantise(widths[rows, chosen], POSITION_BITS), smallest, outer),
        np.clip(quantise(heights[rows, chosen], POSITION_BITS), smallest, outer),
    )


def _matrices(inverse: Floats, crop: Floats, size: int, side: int, level: npt.NDArray[np.int64]) -> Floats:
    """Maps (n, 2, 3) from patch pixel indices to pixel indices of each patch's pyramid level.

    Level k holds the photo at every 2**k-th pixel, so a photo index divided by 2**k is a level index. The
    entries are short binary fractions: their products with pixel indices are exact, fused or not.
    """
    shrink = 2.0 ** -level.astype(np.float64)
    scale_x, scale_y = crop[:, 2] / side, crop[:, 3] / side
    linear = inverse * np.stack([scale_x, scale_x, scale_y, scale_y], axis=1) * shrink[:, None]
    linear = quantise(linear, MATRIX_BITS)
    middle = (size - 1) / 2
    centre_x = (crop[:, 0] + crop[:, 2] / 2 - 0.5) * shrink
    centre_y = (crop[:, 1] + crop[:, 3] / 2 - 0.5) * shrink
    offset_x = quantise(centre_x - (linear[:, 0] + linear[:, 1]) * middle, OFFSET_BITS)
    offset_y = quantise(centre_y - (linear[:, 2] + linear[:, 3]) * middle, OFFSET_BITS)
    rows = [linear[:, 0], linear[:, 1], offset_x, linear[:, 2], linear[:, 3], offset_y]
    return np.stack(rows, axis=1).reshape(-1, 2, 3)


def _outlines(forward: Floats, inverse: Floats, size: int, side: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The resized crop's outline in patch pixel indices (n, 4, 2), and whether a patch reaches beyond it."""
    middle = (size - 1) / 2
    reach = (np.abs(inverse[:, 0::2]) + np.abs(inverse[:, 1::2])) * middle
    clipped: npt.NDArray[np.bool_] = np.any(reach > side / 2 - 0.5, axis=1)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64) * (side / 2)
    across = forward[:, None, 0] * corners[:, 0] + forward[:, None, 1] * corners[:, 1]
    down = forward[:, None, 2] * corners[:, 0] + forward[:, None, 3] * corners[:, 1]
    return np.stack([across, down], axis=2) + middle, clipped


class Warp:
    """Reads patches out of a pyramid; holds the buffers that every patch needs again."""

    def __init__(self, geometry: Geometry, size: int, pyramid: Pyramid) -> None:
        self._size = size
        self._pyramid = pyramid
        self._black = geometry.corners == "black"
        self._mask = np.empty((size, size), dtype=np.uint8)

    def __call__(self, places: Placements, i: int) -> npt.NDArray[np.uint8]:
        """Patch ``i`` of ``places``: RGB uint8 of shape (size, size, 3)."""
        level = self._pyramid.levels[places.level[i]]
        matrix = places.matrix[i]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shape = (self._size, self._size)
        if not self._black:
            return cv2.warpAffine(level, matrix, shape, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        left, right = self._span(places.x[i], places.width[i], places.level[i], level.shape[1])
        top, bottom = self._span(places.y[i], places.height[i], places.level[i], level.shape[0])
        matrix = matrix.copy()
        matrix[0, 2] -= left
        matrix[1, 2] -= top
        # The reference resizes the crop alone, so nothing outside it may bleed in.
        crop = level[top:bottom, left:right]
        patch = cv2.warpAffine(crop, matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return self._blacken(patch, places.polygon[i]) if places.clipped[i] else patch

    @staticmethod
    def _span(start: float, length: float, level: int, limit: int) -> tuple[int, int]:
        """The pixels of a level whose centres lie in a crop's range; at least one."""
        shrink = 2.0**-level
        first = min(math.ceil((start - 0.5) * shrink), limit - 1)
        last = min(math.ceil((start + length - 0.5) * shrink), limit)
        return max(first, 0), max(last, first + 1, 1)

    def _blacken(self, patch: npt.NDArray[np.uint8], polygon: Floats) -> npt.NDArray[np.uint8]:
        self._mask.fill(0)
        points = np.rint(polygon * 2**_POLYGON_BITS).astype(np.int32)
        cv2.fillConvexPoly(self._mask, points, 255, lineType=cv2.LINE_8, shift=_POLYGON_BITS)
        return cv2.bitwise_and(patch, patch, mask=self._mask)
