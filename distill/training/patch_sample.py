"""Copy the manifest and some patches of a patch set into the run directory, so that reports need no patch set."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from PIL import Image

from manifests import PatchSet
from manifests.crop_outlines import read_outlines
from manifests.errors import PatchSetError
from manifests.format.schema import PACKED, Manifest, patch_key
from manifests.patchset import evenly_spaced
from manifests.support.files import atomic_file, write_atomically

MANIFEST_NAME = "patchset.json"
SHEET_NAME = "patches.png"
OUTLINES_NAME = "patches.json"
COLUMNS, ROWS, GAP, TILE = 12, 5, 2, 64  # of the sheet; a patch has at most TILE pixels a side
logger = logging.getLogger(__name__)


def keep_sample(patchset: PatchSet, out: Path) -> None:
    """Copy into ``out``: the manifest, a picture of 60 patches, and the corners of these patches in the photos.

    If the patches cannot be read, copy only the manifest.
    """
    if (out / OUTLINES_NAME).exists():
        return
    write_atomically(out / MANIFEST_NAME, patchset.manifest.to_json())
    indices = evenly_spaced(patchset, COLUMNS * ROWS)
    try:
        sheet = _sheet(patchset, indices)
        outlines = read_outlines(patchset, indices)
    except PatchSetError as error:  # a run whose images are cached needs no shards and no tables
        logger.info(f"reports of this run will show no patches: {error}")
        return
    with atomic_file(out / SHEET_NAME) as file:
        sheet.save(file, "PNG", compress_level=4)  # a ninth of the time of optimize=True, and 2% more bytes
    patches: list[dict[str, Any]] = [{"key": patch_key(index)} for index in indices]
    for patch, outline in zip(patches, outlines or [], strict=False):
        patch |= {"source": outline.source, "corners": outline.corners}
    write_atomically(out / OUTLINES_NAME, (json.dumps({"patches": patches}) + "\n").encode())


def _sheet(patchset: PatchSet, indices: list[int]) -> Image.Image:
    tile = min(patchset.manifest.size, TILE)
    rows = math.ceil(len(indices) / COLUMNS)
    step = tile + GAP
    sheet = Image.new("RGBA", (min(len(indices), COLUMNS) * step - GAP, rows * step - GAP))  # transparent gaps
    for number, index in enumerate(indices):
        image = Image.fromarray(patchset[index])
        if patchset.manifest.size > tile:
            image = image.resize((tile, tile), Image.Resampling.LANCZOS)
        sheet.paste(image, (number % COLUMNS * step, number // COLUMNS * step))
    return sheet


def photo_option(manifest: Manifest | None) -> str:
    """Return ``" --image PHOTO"`` for a printed ``distill report`` command, or "" if the set has no source photo."""
    return "" if manifest is None or manifest.recipe.get("name") == PACKED else " --image PHOTO"
