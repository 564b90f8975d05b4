"""Read patches from image pyramids at their placements, by one bilinear warp each."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from patchgen.limits import MAX_SIDE
from patchgen.pixels.exact_math import Floats
from patchgen.pixels.geometry import Geometry, Placements
from patchgen.pixels.pyramid import Pyramid

Patch = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_POLYGON_BITS = 8
_MARGIN = 1  # pixels around a patch that bilinear reading needs: inside the photo, its border is never read
_WINDOW = 1 << 14
"""Pixels that OpenCV gets of a level's side of more than ``MAX_SIDE``. Only enlarged levels have such sides.

Those have at most 2**25 pixels, so that the other side is at most 1,024 px. No pixel of a patch reads farther than
4,173 px from its center: half the crop's side, which is at most the other side, times the largest shear and rotation
(1 / cos 80° · √2). A window around the center therefore holds all that is read, reflections included.
"""


class Warp:
    """Reads the patches of ``places``; index it by a patch's position in them."""

    def __init__(self, geometry: Geometry, size: int, pyramids: Sequence[Pyramid], places: Placements) -> None:
        self._shape = (size, size)
        self._levels = [
            pyramids[source].levels[index]
            for source, index in zip(places.source.tolist(), places.level_index.tolist(), strict=True)
        ]
        self._black = geometry.corners == "black"
        extent = np.array([level.shape[1::-1] for level in self._levels], dtype=np.int64).reshape(-1, 2)
        if self._black:
            self._polygons = places.polygon
            self._clipped = places.clipped.tolist()
            shift = self._cut(places, extent)
            matrices = places.matrix.copy()
            matrices[:, :, 2] -= shift
            self._borders = [cv2.BORDER_REPLICATE] * len(matrices)
        else:
            inside = _inside(places.matrix, size, extent)
            matrices = self._windowed(places.matrix, size, extent)
            self._borders = np.where(inside, cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101).tolist()
        self._matrices = list(matrices)

    def _cut(self, places: Placements, extent: Ints) -> Ints:
        """Reduce every level to the patch's crop, and return the crops' corners (n, 2).

        The reference resizes only the crop, so no pixel outside may have an influence.
        """
        left, right = _spans(places.x, places.width, places.ratio[:, 0], extent[:, 0])
        top, bottom = _spans(places.y, places.height, places.ratio[:, 1], extent[:, 1])
        spans = zip(self._levels, *(edge.tolist() for edge in (top, bottom, left, right)), strict=True)
        self._levels = [level[t:b, le:ri] for level, t, b, le, ri in spans]
        return np.stack([left, top], axis=1)

    def _windowed(self, matrices: Floats, size: int, extent: Ints) -> Floats:
        """Reduce every level that is too long for OpenCV to a window, and return the matrices for the windows.

        Windows start at whole pixels, so OpenCV's fixed-point coordinates shift exactly and no patch changes.
        """
        long = extent > MAX_SIDE
        if not long.any():
            return matrices
        middle = (size - 1) / 2
        center = np.floor(matrices[:, :, 2] + (matrices[:, :, 0] + matrices[:, :, 1]) * middle).astype(np.int64)
        first = np.where(long, np.clip(center - _WINDOW // 2, 0, np.maximum(extent - _WINDOW, 0)), 0)
        end = np.where(long, first + _WINDOW, extent)
        corners = zip(self._levels, first.tolist(), end.tolist(), strict=True)
        self._levels = [level[top:bottom, left:right] for level, (left, top), (right, bottom) in corners]
        moved = matrices.copy()
        moved[:, :, 2] -= first
        return moved

    def __getitem__(self, i: int) -> Patch:
        """Return patch ``i``: RGB uint8 of shape (size, size, 3)."""
        patch = cv2.warpAffine(
            self._levels[i], self._matrices[i], self._shape, flags=_FLAGS, borderMode=self._borders[i]
        )
        return self._blacken(patch, self._polygons[i]) if self._black and self._clipped[i] else patch

    def _blacken(self, patch: Patch, polygon: Floats) -> Patch:
        mask = np.zeros(self._shape, dtype=np.uint8)
        points = np.rint(polygon * 2**_POLYGON_BITS).astype(np.int32)
        cv2.fillConvexPoly(mask, points, 255, lineType=cv2.LINE_8, shift=_POLYGON_BITS)
        return cv2.bitwise_and(patch, patch, mask=mask)


def _spans(start: Floats, length: Floats, ratio: Floats, limit: Ints) -> tuple[Ints, Ints]:
    """Return start and end of the pixels of a level whose centers are in each crop's range; at least one pixel."""
    first = np.minimum(np.ceil(start * ratio - 0.5), limit - 1)
    last = np.minimum(np.ceil((start + length) * ratio - 0.5), limit)
    return np.maximum(first, 0).astype(np.int64), np.maximum(np.maximum(last, first + 1), 1).astype(np.int64)


def _inside(matrices: Floats, size: int, extent: Ints) -> npt.NDArray[np.bool_]:
    """Return which patches read nothing outside their level, so that OpenCV's fastest border mode can be used.

    A border mode changes no pixel of such a patch; reflection costs twice the time at 224 px.
    """
    middle = (size - 1) / 2
    center = matrices[:, :, 2] + (matrices[:, :, 0] + matrices[:, :, 1]) * middle
    reach = (np.abs(matrices[:, :, 0]) + np.abs(matrices[:, :, 1])) * middle + _MARGIN
    inside: npt.NDArray[np.bool_] = np.all((center - reach >= 0) & (center + reach <= extent - 1), axis=1)
    return inside
