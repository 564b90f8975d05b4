"""Draw where in a photo patches lie: crop, resize, rotation, shear and center crop as one affine map.

The reference (Asano & Saeed 2023, arXiv 2112.00725, and its code) crops a square of half the short side,
takes a random resized crop of that at √2 × size, applies a random affine map and crops the center. All are
affine, so one map leads from a pixel of the patch to a position in the photo. ``warp`` reads the pixels there.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from patchgen.errors import PatchgenError
from patchgen.pixels.exact_math import Floats, cos_degrees, exp, floor_log2, quantize, sin_degrees
from patchgen.pixels.pyramid import Pyramid, build_pyramid
from patchgen.pixels.randomness import between

_ATTEMPTS = 10
_DRAW_CROP, _DRAW_ANGLE, _DRAW_SHEAR, _DRAW_INNER, _DRAW_SHAPE = 0, 2, 3, 4, 6
_DRAW_SOURCE, _DRAW_HFLIP, _DRAW_VFLIP = 26, 27, 28

_ENLARGES_BELOW = 0.66  # scale below which a patch may use the enlarged level: 4 · log2(scale), rounded, is below -2

POSITION_BITS, MATRIX_BITS, OFFSET_BITS = 10, 24, 12


class Geometry(BaseModel):
    """Ranges from which the placement of each patch is drawn, uniformly unless stated otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    crop: Annotated[float, Field(gt=0, le=1, description="side of the first square, × the short side")]
    area: Annotated[tuple[float, float], Field(description="area of the second crop, × the first")]
    aspect: Annotated[tuple[float, float], Field(description="its width / height, uniform in logarithm")]
    oversize: Annotated[float, Field(ge=1, le=4, description="pixels it is resized to, × size, rounded down")]
    rotation: Annotated[float, Field(ge=0, le=180, description="± degrees")]
    shear: Annotated[float, Field(ge=0, le=80, description="± degrees, along x")]
    corners: Annotated[Literal["black", "photo"], Field(description="what lies beyond the second crop")]
    hflip: Annotated[float, Field(ge=0, le=1, description="share of patches mirrored left to right")] = 0.0
    vflip: Annotated[float, Field(ge=0, le=1, description="share of patches mirrored top to bottom")] = 0.0

    @model_validator(mode="after")
    def _ranges(self) -> "Geometry":
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area is {list(self.area)}, expected 0 < low ≤ high ≤ 1")
        if not 0.01 <= self.aspect[0] <= self.aspect[1] <= 100:
            raise ValueError(f"aspect is {list(self.aspect)}, expected 0.01 ≤ low ≤ high ≤ 100")
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placements:
    """Where n patches lie. Lengths are in photo pixels, angles in degrees, arrays of shape (n,) if not stated.

    ``source`` is the photo's number. ``x``, ``y`` are the left and top edge of the crop; pixel i covers
    [i, i + 1). ``level`` is the pyramid level that is read, ``level_index`` its index in ``Pyramid.levels``.
    ``matrix`` (n, 2, 3) maps a patch's pixel (column, row, 1) to pixel indices of the level; ``ratio`` (n, 2) is
    the level's width and height divided by the photo's. ``polygon`` (n, 4, 2) is the crop's outline in pixel indices
    of the patch; ``clipped`` says whether a part of the patch lies outside it.
    """

    source: npt.NDArray[np.int64]
    x: Floats
    y: Floats
    width: Floats
    height: Floats
    rotation: Floats
    shear: Floats
    hflip: npt.NDArray[np.bool_]
    vflip: npt.NDArray[np.bool_]
    level: npt.NDArray[np.int64]
    level_index: npt.NDArray[np.int64]
    ratio: Floats
    matrix: Floats
    polygon: Floats
    clipped: npt.NDArray[np.bool_]

    def columns(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the applied parameters by the names of their columns in a shard's table."""
        crop = {"crop_x": self.x, "crop_y": self.y, "crop_width": self.width, "crop_height": self.height}
        same = ("rotation", "shear", "hflip", "vflip", "level")
        return {"source": self.source, **crop, **{name: getattr(self, name) for name in same}}


def build_pyramids(geometry: Geometry, size: int, photos: Sequence[npt.NDArray[np.uint8]]) -> tuple[Pyramid, ...]:
    """Return the pyramids of ``photos`` with the levels that patches of ``size`` px may read."""
    pyramids = []
    for photo in photos:
        outer = geometry.crop * min(photo.shape[:2])
        smallest = math.sqrt(geometry.area[0]) * outer / math.floor(geometry.oversize * size)
        try:
            pyramids.append(build_pyramid(photo, enlarge=smallest < _ENLARGES_BELOW))
        except (MemoryError, cv2.error) as error:  # OpenCV raises only for memory here
            pixels = f"{photo.shape[1]}×{photo.shape[0]}"
            raise PatchgenError(f"too little memory for a photo of {pixels} pixels; scale it down") from error
    return tuple(pyramids)


def place(geometry: Geometry, size: int, pyramids: Sequence[Pyramid], draws: Floats) -> Placements:
    """Return placements of patches of ``size`` px from their draws, shape (n, ≥ 29) in [0, 1).

    The photo of each patch is drawn uniformly from all photos.
    """
    source = np.floor(draws[:, _DRAW_SOURCE] * len(pyramids)).astype(np.int64)
    photo_width, photo_height = np.array([p.photo.shape[1::-1] for p in pyramids])[source].T
    outer = np.maximum(1.0, np.floor(geometry.crop * np.minimum(photo_width, photo_height)))
    left = np.floor(draws[:, _DRAW_CROP] * (photo_width - outer + 1))
    top = np.floor(draws[:, _DRAW_CROP + 1] * (photo_height - outer + 1))
    width, height = _shapes(geometry, outer, draws)
    x = quantize(left + draws[:, _DRAW_INNER] * (outer - width), POSITION_BITS)
    y = quantize(top + draws[:, _DRAW_INNER + 1] * (outer - height), POSITION_BITS)
    rotation = quantize(between(draws[:, _DRAW_ANGLE], -geometry.rotation, geometry.rotation), POSITION_BITS)
    shear = quantize(between(draws[:, _DRAW_SHEAR], -geometry.shear, geometry.shear), POSITION_BITS)
    hflip, vflip = draws[:, _DRAW_HFLIP] < geometry.hflip, draws[:, _DRAW_VFLIP] < geometry.vflip

    side = math.floor(geometry.oversize * size)
    level, level_index, ratio = _levels(pyramids, source, width * height / (side * side))
    forward = _affine(rotation, shear, hflip, vflip)
    # A warp reads backwards, so it needs the inverse; the determinant is 1 or, mirrored once, -1.
    determinant = np.where(hflip ^ vflip, -1.0, 1.0)[:, None]
    inverse = np.stack([forward[:, 3], -forward[:, 1], -forward[:, 2], forward[:, 0]], axis=1) * determinant
    polygon, clipped = _outlines(forward, inverse, size, side)
    return Placements(
        source=source,
        x=x,
        y=y,
        width=width,
        height=height,
        rotation=rotation,
        shear=shear,
        hflip=hflip,
        vflip=vflip,
        level=level,
        level_index=level_index,
        ratio=ratio,
        matrix=_matrices(inverse, np.stack([x, y, width, height], axis=1), size, side, ratio),
        polygon=polygon,
        clipped=clipped,
    )


def _levels(
    pyramids: Sequence[Pyramid], source: npt.NDArray[np.int64], area: Floats
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Return level, its index and its ratios for each patch: nearest to its scale, the square root of ``area``."""
    # The level is 4 · log2(scale), rounded: the whole part of log2(area² · √2), without a rounded logarithm.
    ideal = floor_log2(area * area * math.sqrt(2.0))
    level, index, ratio = np.empty_like(source), np.empty_like(source), np.empty((len(source), 2))
    for k, pyramid in enumerate(pyramids):
        chosen = source == k
        index[chosen] = pyramid.nearest(ideal[chosen])
        level[chosen] = np.array(pyramid.numbers)[index[chosen]]
        extents = np.array([image.shape[1::-1] for image in pyramid.levels], dtype=np.float64)
        ratio[chosen] = (extents / pyramid.photo.shape[1::-1])[index[chosen]]
    return level, index, ratio


def _affine(rotation: Floats, shear: Floats, hflip: npt.NDArray[np.bool_], vflip: npt.NDArray[np.bool_]) -> Floats:
    """Return the maps (n, 4), row by row, that shear, rotate and then mirror the resized crop about its center.

    M = diag(±1, ±1) · R(rotation) · [[1, -tan(shear)], [0, 1]].
    """
    sine, cosine = sin_degrees(rotation), cos_degrees(rotation)
    slope = sin_degrees(shear) / cos_degrees(shear)
    across, down = np.where(hflip, -1.0, 1.0), np.where(vflip, -1.0, 1.0)
    rows = [across * cosine, across * (-cosine * slope - sine), down * sine, down * (-sine * slope + cosine)]
    return np.stack(rows, axis=1)


def _shapes(geometry: Geometry, outer: Floats, draws: Floats) -> tuple[Floats, Floats]:
    """Return width and height of the second crop: the first of ten attempts that fits, else the tenth, clipped."""
    shapes = draws[:, _DRAW_SHAPE : _DRAW_SHAPE + 2 * _ATTEMPTS]
    area = between(shapes[:, :_ATTEMPTS], *geometry.area) * (outer * outer)[:, None]
    log_low, log_high = math.log(geometry.aspect[0]), math.log(geometry.aspect[1])
    # math.log may differ by an ulp between C libraries; 2**-40 is much larger than that, and much less than a pixel.
    low, high = (round(value * 2**40) / 2**40 for value in (log_low, log_high))
    aspect = exp(between(shapes[:, _ATTEMPTS:], low, high))
    widths, heights = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (widths <= outer[:, None]) & (heights <= outer[:, None])
    fits[:, -1] = True
    chosen = np.argmax(fits, axis=1)
    rows = np.arange(len(chosen))
    smallest = 2.0**-POSITION_BITS
    return (
        np.clip(quantize(widths[rows, chosen], POSITION_BITS), smallest, outer),
        np.clip(quantize(heights[rows, chosen], POSITION_BITS), smallest, outer),
    )


def _matrices(inverse: Floats, crop: Floats, size: int, side: int, ratio: Floats) -> Floats:
    """Return maps (n, 2, 3) from patch pixel indices to pixel indices of each patch's pyramid level.

    Pixel i covers [i, i + 1) in every level, so its center is at i + 0.5. The entries are short binary fractions:
    their products with pixel indices are exact, fused or not.
    """
    scale = crop[:, 2:] / side * ratio
    linear = quantize(inverse * np.repeat(scale, 2, axis=1), MATRIX_BITS)
    middle = (size - 1) / 2
    center = (crop[:, :2] + crop[:, 2:] / 2) * ratio - 0.5
    offset_x = quantize(center[:, 0] - (linear[:, 0] + linear[:, 1]) * middle, OFFSET_BITS)
    offset_y = quantize(center[:, 1] - (linear[:, 2] + linear[:, 3]) * middle, OFFSET_BITS)
    rows = [linear[:, 0], linear[:, 1], offset_x, linear[:, 2], linear[:, 3], offset_y]
    return np.stack(rows, axis=1).reshape(-1, 2, 3)


def _outlines(forward: Floats, inverse: Floats, size: int, side: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the resized crop's outline in patch pixel indices (n, 4, 2), and whether a patch extends beyond it."""
    middle = (size - 1) / 2
    reach = (np.abs(inverse[:, 0::2]) + np.abs(inverse[:, 1::2])) * middle
    clipped: npt.NDArray[np.bool_] = np.any(reach > side / 2 - 0.5, axis=1)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64) * (side / 2)
    across = forward[:, None, 0] * corners[:, 0] + forward[:, None, 1] * corners[:, 1]
    down = forward[:, None, 2] * corners[:, 0] + forward[:, None, 3] * corners[:, 1]
    return np.stack([across, down], axis=2) + middle, clipped
