"""Read patches from photos at many resolutions. One bilinear warp reads one patch."""

from collections.abc import Sequence

import cv2
import numpy as np

from patchgen.limits import MAX_SIDE
from patchgen.pixels.exact_math import Bools, Floats, Ints, Pixels
from patchgen.pixels.geometry import Geometry, Placements
from patchgen.pixels.pyramid import Pyramid

_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_POLYGON_BITS = 8
_MARGIN = 1  # pixels around a patch that a bilinear warp reads
_WINDOW = 1 << 14
"""Length of a window in pixels. If a side of a level is longer than ``MAX_SIDE``, OpenCV reads only a window of it.

Only enlarged levels have such sides. Enlarged levels have at most 2**25 pixels, so the other side has at most 1,024.
No pixel of a patch is read farther than 4,173 px from the patch's center: half the crop's side (at most 512 px) times
the largest shear and rotation (1 / cos 80° · √2). The window therefore contains all pixels that are read.
"""


class Warp:
    """Reads patches: ``warp[i]`` is the patch at placement number ``i``."""

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
        """Replace each patch's pyramid level by a crop of this level. Return the crops' left and top edges (n, 2).

        The code of the paper resizes only the crop, so no pixel outside the crop may change the patch.
        """
        left, right = _spans(places.x, places.width, places.ratio[:, 0], extent[:, 0])
        top, bottom = _spans(places.y, places.height, places.ratio[:, 1], extent[:, 1])
        spans = zip(self._levels, *(edge.tolist() for edge in (top, bottom, left, right)), strict=True)
        self._levels = [level[t:b, le:ri] for level, t, b, le, ri in spans]
        return np.stack([left, top], axis=1)

    def _windowed(self, matrices: Floats, size: int, extent: Ints) -> Floats:
        """Cut a window out of every level that is too long for OpenCV, and return the matrices for the windows.

        A window starts at a whole pixel. OpenCV's fixed-point coordinates therefore shift exactly.
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

    def __getitem__(self, i: int) -> Pixels:
        """Return patch ``i``: RGB uint8 of shape (size, size, 3)."""
        level, matrix, border = self._levels[i], self._matrices[i], self._borders[i]
        patch = cv2.warpAffine(level, matrix, self._shape, flags=_FLAGS, borderMode=border)
        if not self._black or not self._clipped[i]:
            return patch
        mask = np.zeros(self._shape, dtype=np.uint8)
        points = np.rint(self._polygons[i] * 2**_POLYGON_BITS).astype(np.int32)
        cv2.fillConvexPoly(mask, points, 255, lineType=cv2.LINE_8, shift=_POLYGON_BITS)
        return cv2.bitwise_and(patch, patch, mask=mask)


def _spans(start: Floats, length: Floats, ratio: Floats, limit: Ints) -> tuple[Ints, Ints]:
    """Return start and end, on one axis, of the pixels whose centers are in each crop: at least one pixel."""
    first = np.minimum(np.ceil(start * ratio - 0.5), limit - 1)
    last = np.minimum(np.ceil((start + length) * ratio - 0.5), limit)
    return np.maximum(first, 0).astype(np.int64), np.maximum(np.maximum(last, first + 1), 1).astype(np.int64)


def _inside(matrices: Floats, size: int, extent: Ints) -> Bools:
    """Return whether each patch reads only pixels inside its level. If so, OpenCV's fastest border mode is used.

    The border mode does not change these patches. The reflecting mode takes twice the time at 224 px.
    """
    middle = (size - 1) / 2
    center = matrices[:, :, 2] + (matrices[:, :, 0] + matrices[:, :, 1]) * middle
    reach = (np.abs(matrices[:, :, 0]) + np.abs(matrices[:, :, 1])) * middle + _MARGIN
    inside: Bools = np.all((center - reach >= 0) & (center + reach <= extent - 1), axis=1)
    return inside
