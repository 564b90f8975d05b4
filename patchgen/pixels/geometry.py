"""Draw the placement of each patch in a photo: crop, resize, rotation, shear and center crop as one affine map.

The code of the paper (Asano & Saeed 2023, arXiv 2112.00725) crops a square of half the photo's short side. It resizes
a random crop of this square to √2 × size, applies a random affine map and crops the center. All these steps are
affine, so one map converts positions in the patch to positions in the photo. ``warp`` reads the pixels.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from patchgen.errors import PatchgenError
from patchgen.pixels.exact_math import (
    Bools,
    Floats,
    Ints,
    Pixels,
    cos_degrees,
    exp,
    floor_log2,
    quantize,
    sin_degrees,
)
from patchgen.pixels.pyramid import Pyramid, build_pyramid
from patchgen.pixels.randomness import between

_ATTEMPTS = 10
_DRAW_CROP, _DRAW_ANGLE, _DRAW_SHEAR, _DRAW_INNER, _DRAW_SHAPE = 0, 2, 3, 4, 6
_DRAW_SOURCE, _DRAW_HFLIP, _DRAW_VFLIP = 26, 27, 28
_ENLARGES_BELOW = 0.66  # scale below which a patch may use the enlarged level: 4 · log2(scale), rounded, is below -2
POSITION_BITS, MATRIX_BITS, OFFSET_BITS = 10, 24, 12


class Geometry(BaseModel):
    """The ranges from which a recipe draws the placement of each patch."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    crop: Annotated[
        float, Field(gt=0, le=1, description="side of the first square, relative to the photo's short side")
    ]
    area: Annotated[tuple[float, float], Field(description="area of the second crop, relative to the first square")]
    aspect: Annotated[
        tuple[float, float], Field(description="width / height of the second crop; its logarithm is uniform")
    ]
    oversize: Annotated[
        float, Field(ge=1, le=4, description="size of the resized second crop, relative to the patch")
    ]
    rotation: Annotated[float, Field(ge=0, le=180, description="± degrees")]
    shear: Annotated[float, Field(ge=0, le=80, description="± degrees, along x")]
    corners: Annotated[Literal["black", "photo"], Field(description="pixels outside the second crop")]
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
    """The placements of n patches in their photos. An array has the shape (n,), or the shape in its comment."""

    source: Ints  # number of the photo
    x: Floats  # left edge of the crop in pixels of the photo; pixel i covers [i, i + 1)
    y: Floats  # top edge
    width: Floats
    height: Floats
    rotation: Floats  # degrees
    shear: Floats  # degrees
    hflip: Bools
    vflip: Bools
    level: Ints  # number of the pyramid level that is read
    level_index: Ints  # index of this level in ``Pyramid.levels``
    ratio: Floats  # (n, 2): width and height of the level, divided by those of the photo
    matrix: Floats  # (n, 2, 3): from a patch's pixel (column, row, 1) to pixel indices of the level
    polygon: Floats  # (n, 4, 2): corners of the crop in pixel indices of the patch
    clipped: Bools  # whether a part of the patch is outside the crop

    def columns(self) -> dict[str, Any]:
        """Return the columns of a shard's table for these placements, by column name."""
        crop = {"crop_x": self.x, "crop_y": self.y, "crop_width": self.width, "crop_height": self.height}
        same = ("rotation", "shear", "hflip", "vflip", "level")
        return {"source": self.source, **crop, **{name: getattr(self, name) for name in same}}


def build_pyramids(geometry: Geometry, size: int, photos: Sequence[Pixels]) -> tuple[Pyramid, ...]:
    """Return the pyramid of each photo: all resolutions of the photo that patches of ``size`` px may read."""
    pyramids = []
    for photo in photos:
        outer = geometry.crop * min(photo.shape[:2])
        smallest = math.sqrt(geometry.area[0]) * outer / math.floor(geometry.oversize * size)
        try:
            pyramids.append(build_pyramid(photo, enlarge=smallest < _ENLARGES_BELOW))
        except (MemoryError, cv2.error) as error:  # OpenCV fails here only if memory is missing
            pixels = f"{photo.shape[1]}×{photo.shape[0]} pixels"
            raise PatchgenError(f"a photo of {pixels} needs more memory than is free; scale it down") from error
    return tuple(pyramids)


def place(geometry: Geometry, size: int, pyramids: Sequence[Pyramid], draws: Floats) -> Placements:
    """Return the placements of n patches of ``size`` px. ``draws`` (n, ≥ 29) are random numbers in [0, 1)."""
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
    # A warp maps patch to photo, so it needs the inverse. The determinant is 1, or -1 if the patch is mirrored once.
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


def _levels(pyramids: Sequence[Pyramid], source: Ints, area: Floats) -> tuple[Ints, Ints, Floats]:
    """Return ``level``, ``level_index`` and ``ratio`` of ``Placements``. ``area`` is photo pixels per patch pixel."""
    # The level is 4 · log2(scale), rounded. This is the integer part of log2(area² · √2), which is computed exactly.
    ideal = floor_log2(area * area * math.sqrt(2.0))
    level, index, ratio = np.empty_like(source), np.empty_like(source), np.empty((len(source), 2))
    for k, pyramid in enumerate(pyramids):
        chosen = source == k
        index[chosen] = pyramid.nearest(ideal[chosen])
        level[chosen] = np.array(pyramid.numbers)[index[chosen]]
        extents = np.array([image.shape[1::-1] for image in pyramid.levels], dtype=np.float64)
        ratio[chosen] = (extents / pyramid.photo.shape[1::-1])[index[chosen]]
    return level, index, ratio


def _affine(rotation: Floats, shear: Floats, hflip: Bools, vflip: Bools) -> Floats:
    """Return the maps (n, 4) that shear, rotate and then mirror the resized crop about its center.

    A map is M = diag(±1, ±1) · R(rotation) · [[1, -tan(shear)], [0, 1]], row by row.
    """
    sine, cosine = sin_degrees(rotation), cos_degrees(rotation)
    slope = sin_degrees(shear) / cos_degrees(shear)
    across, down = np.where(hflip, -1.0, 1.0), np.where(vflip, -1.0, 1.0)
    rows = [across * cosine, across * (-cosine * slope - sine), down * sine, down * (-sine * slope + cosine)]
    return np.stack(rows, axis=1)


def _shapes(geometry: Geometry, outer: Floats, draws: Floats) -> tuple[Floats, Floats]:
    """Return widths and heights of second crops: the first of ten drawn shapes that fits, else the last, clipped."""
    shapes = draws[:, _DRAW_SHAPE : _DRAW_SHAPE + 2 * _ATTEMPTS]
    area = between(shapes[:, :_ATTEMPTS], *geometry.area) * (outer * outer)[:, None]
    log_low, log_high = math.log(geometry.aspect[0]), math.log(geometry.aspect[1])
    # math.log may differ in the last bit between C libraries. Steps of 2**-40 hide that and are far below a pixel.
    low, high = (round(value * 2**40) / 2**40 for value in (log_low, log_high))
    aspect = exp(between(shapes[:, _ATTEMPTS:], low, high))
    widths, heights = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (widths <= outer[:, None]) & (heights <= outer[:, None])
    fits[:, -1] = True
    chosen = np.argmax(fits, axis=1)
    rows = np.arange(len(chosen))
    width, height = (quantize(lengths[rows, chosen], POSITION_BITS) for lengths in (widths, heights))
    smallest = 2.0**-POSITION_BITS
    return np.clip(width, smallest, outer), np.clip(height, smallest, outer)


def _matrices(inverse: Floats, crop: Floats, size: int, side: int, ratio: Floats) -> Floats:
    """Return maps (n, 2, 3) from pixel indices of a patch to pixel indices of its pyramid level.

    Pixel i covers [i, i + 1) in every level, so its center is at i + 0.5. The entries of a map are short binary
    fractions, so the products of entries and pixel indices are exact.
    """
    scale = crop[:, 2:] / side * ratio
    linear = quantize(inverse * np.repeat(scale, 2, axis=1), MATRIX_BITS)
    middle = (size - 1) / 2
    center = (crop[:, :2] + crop[:, 2:] / 2) * ratio - 0.5
    offset_x = quantize(center[:, 0] - (linear[:, 0] + linear[:, 1]) * middle, OFFSET_BITS)
    offset_y = quantize(center[:, 1] - (linear[:, 2] + linear[:, 3]) * middle, OFFSET_BITS)
    rows = [linear[:, 0], linear[:, 1], offset_x, linear[:, 2], linear[:, 3], offset_y]
    return np.stack(rows, axis=1).reshape(-1, 2, 3)


def _outlines(forward: Floats, inverse: Floats, size: int, side: int) -> tuple[Floats, Bools]:
    """Return crop corners (n, 4, 2) in pixel indices of the patches, and whether each patch exceeds its crop."""
    middle = (size - 1) / 2
    reach = (np.abs(inverse[:, 0::2]) + np.abs(inverse[:, 1::2])) * middle
    clipped: Bools = np.any(reach > side / 2 - 0.5, axis=1)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64) * (side / 2)
    across = forward[:, None, 0] * corners[:, 0] + forward[:, None, 1] * corners[:, 1]
    down = forward[:, None, 2] * corners[:, 0] + forward[:, None, 3] * corners[:, 1]
    return np.stack([across, down], axis=2) + middle, clipped
