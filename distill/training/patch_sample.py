"""Files about the patch set in a run directory: its manifest and a sample of its patches, for reports."""

import io
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

from distill.errors import Say
from manifests import PatchSet
from manifests.crop_outlines import read_outlines
from manifests.errors import PatchSetError
from manifests.format.schema import PACKED, Manifest, patch_key
from manifests.patchset import evenly_spaced, read_patches
from manifests.support.files import write_atomically

MANIFEST_NAME = "patchset.json"
SHEET_NAME = "patches.png"
OUTLINES_NAME = "patches.json"
COLUMNS, ROWS, GAP = 12, 5, 2
TILE = 64
"""Maximum pixels a side of a patch in the sheet."""


def keep_sample(patchset: PatchSet, out: Path, say: Say) -> None:
    """Write a set's manifest, a sheet of 60 evenly spaced patches and their outlines in the photos to ``out``.

    Does nothing if they are there already.
    """
    if (out / OUTLINES_NAME).exists():
        return
    write_atomically(out / MANIFEST_NAME, patchset.manifest.to_json())
    indices = evenly_spaced(patchset, COLUMNS * ROWS)
    try:
        sheet = _sheet(patchset, indices)
        outlines = read_outlines(patchset, indices)
    except PatchSetError as error:  # a run whose pixels are cached does not need the shards or tables
        say(f"no sample of patches is kept: {error}")
        return
    write_atomically(out / SHEET_NAME, sheet)
    patches: list[dict[str, Any]] = [{"key": patch_key(index)} for index in indices]
    for patch, outline in zip(patches, outlines or [], strict=False):
        patch |= {"source": outline.source, "corners": outline.corners}
    write_atomically(out / OUTLINES_NAME, (json.dumps({"patches": patches}) + "\n").encode())


def _sheet(patchset: PatchSet, indices: list[int]) -> bytes:
    tile = min(patchset.manifest.size, TILE)
    rows = math.ceil(len(indices) / COLUMNS)
    step = tile + GAP
    sheet = Image.new("RGBA", (min(len(indices), COLUMNS) * step - GAP, rows * step - GAP))  # transparent gaps
    for number, patch in enumerate(read_patches(patchset, indices)):
        image = Image.fromarray(patch)
        if patchset.manifest.size > tile:
            image = image.resize((tile, tile), Image.Resampling.LANCZOS)
        sheet.paste(image, (number % COLUMNS * step, number // COLUMNS * step))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def photo_option(manifest: Manifest | None) -> str:
    """Return the ``--image`` option to suggest for ``distill report``; empty for a set not made from a photo."""
    return "" if manifest is None or manifest.recipe.get("name") == PACKED else " --image PHOTO"
