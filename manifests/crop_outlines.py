"""Where in their photos patches lie, from the parameters that tables carry (FORMAT.md, section 3)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from manifests.format import shard_table
from manifests.patchset import PatchSet

COLUMNS = (
    *("source", "crop_x", "crop_y", "crop_width", "crop_height"),
    *("rotation", "shear", "hflip", "vflip"),
)
MOST_OVERSIZE = 4
"""That a recipe of ``patchgen`` may have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """The corners of a patch in pixels of its photo, number ``source`` of the manifest's, from 0.

    They are the patch's top left, top right, bottom right and bottom left; (0, 0) is the photo's top left edge.
    """

    source: int
    corners: tuple[tuple[float, float], ...]


def read_outlines(patchset: PatchSet, indices: Sequence[int]) -> list[Outline] | None:
    """The outlines of the patches ``indices``; None for a set whose writer does not say where its patches lie.

    Raises:
        PatchSetError: an index outside the set, or a table that cannot be read.
    """
    geometry = patchset.manifest.recipe.get("geometry")
    oversize = geometry.get("oversize") if isinstance(geometry, dict) else None
    if not isinstance(oversize, int | float) or not 1 <= oversize <= MOST_OVERSIZE:
        return None
    tables: dict[str, dict[str, list[Any]] | None] = {}
    outlines = []
    for index in indices:
        shard = patchset.shard_of(index)
        if shard.name not in tables:
            tables[shard.name] = shard_table.read_parameters(patchset.folder / shard.parquet.name, shard.n, COLUMNS)
        table = tables[shard.name]
        if table is None:
            return None
        row = {name: values[index - shard.first_index] for name, values in table.items()}
        if not all(math.isfinite(value) for value in row.values()):
            return None
        outlines.append(_outline(row, patchset.manifest.size, math.floor(oversize * patchset.manifest.size)))
    return outlines


def _outline(row: dict[str, Any], size: int, side: int) -> Outline:
    turn, shear = math.radians(row["rotation"]), math.tan(math.radians(row["shear"]))
    corners = []
    for right, down in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        u = right * size / 2 * (-1 if row["hflip"] else 1)
        v = down * size / 2 * (-1 if row["vflip"] else 1)
        p, q = u * math.cos(turn) + v * math.sin(turn), v * math.cos(turn) - u * math.sin(turn)
        x = row["crop_x"] + row["crop_width"] * (0.5 + (p + q * shear) / side)
        y = row["crop_y"] + row["crop_height"] * (0.5 + q / side)
        corners.append((x, y))
    return Outline(source=int(row["source"]), corners=tuple(corners))
