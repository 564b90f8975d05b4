"""Compute the outline of a patch in its photo, from the crop parameters in a shard's table (FORMAT.md, section 3)."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from manifests.format import shard_table
from manifests.patchset import PatchSet

COLUMNS = ("source", "crop_x", "crop_y", "crop_width", "crop_height", "rotation", "shear", "hflip", "vflip")
MAX_OVERSIZE = 4  # largest ``geometry.oversize`` of a recipe of ``patchgen``


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """The outline of a patch in a photo. ``source`` is the index of the photo in the manifest's ``sources``.

    ``corners`` are the patch's top left, top right, bottom right and bottom left corners as (x, y) in pixels of the
    photo. The photo's top left corner is (0, 0).
    """

    source: int
    corners: tuple[tuple[float, float], ...]


def read_outlines(patchset: PatchSet, indices: Sequence[int]) -> list[Outline] | None:
    """Return the outlines of the patches ``indices``. Return None if the recipe or a table lacks crop parameters."""
    geometry = patchset.manifest.recipe.get("geometry")
    oversize = geometry.get("oversize") if isinstance(geometry, dict) else None
    if not isinstance(oversize, int | float) or not 1 <= oversize <= MAX_OVERSIZE:
        return None
    read = functools.cache(lambda shard: shard_table.read_parameters(folder / shard.parquet.name, shard.n, COLUMNS))
    folder, outlines = patchset.folder, []
    for index in indices:
        shard = patchset.shard_of(index)
        if (table := read(shard)) is None:
            return None
        row = {name: values[index - shard.first_index] for name, values in table.items()}
        if not all(math.isfinite(value) for value in row.values()):
            return None
        outlines.append(_outline(row, patchset.manifest.size, math.floor(oversize * patchset.manifest.size)))
    return outlines


def _outline(row: dict[str, Any], size: int, side: int) -> Outline:
    """Compute an outline from a table row. A patch is ``size`` pixels wide, the resized crop ``side`` pixels."""
    angle, slope = math.radians(row["rotation"]), math.tan(math.radians(row["shear"]))
    corners = []
    for right, down in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        u = right * size / 2 * (-1 if row["hflip"] else 1)
        v = down * size / 2 * (-1 if row["vflip"] else 1)
        p, q = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
        x = row["crop_x"] + row["crop_width"] * (0.5 + (p + q * slope) / side)
        y = row["crop_y"] + row["crop_height"] * (0.5 + q / side)
        corners.append((x, y))
    return Outline(source=int(row["source"]), corners=tuple(corners))
