"""Prepare the pictures of a page: data URIs, heat maps, and photos with the outlines of patches."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from distill.errors import DistillError
from distill.report.run_files import SamplePatch
from manifests.format.digest import file_digest
from manifests.format.schema import Manifest

MAX_PIXELS = 960  # maximum length of a photo's longer side
MAX_OUTLINES = 24  # maximum number of outlines on a photo


def data_uri(data: bytes, kind: str = "png") -> str:
    """Return the bytes of an image file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def read_photos(paths: list[Path], known: set[str]) -> dict[str, bytes]:
    """Read photos. Return small JPEGs by the SHA-256 of the original files.

    ``known`` are the SHA-256 of the source photos in the manifests of the runs; any other photo is an error.
    """
    photos = {}
    for path in paths:
        try:
            digest = file_digest(path)
        except OSError as error:
            raise DistillError(f"{path}: cannot be read: {error.strerror}; choose another --image") from error
        if digest not in known:
            raise DistillError(f"{path}: no set of these runs was built from this file; choose the photo of a set")
        photos[digest] = _small_jpeg(path)
    return photos


def _small_jpeg(path: Path) -> bytes:
    """Return a photo as a small JPEG. Pillow's limit on pixels is off, because the digest of the photo is known."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits: convert() would clip the values
                image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
            image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DistillError(f"{path}: Pillow cannot read this image: {error}; remove this --image") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    image.thumbnail((MAX_PIXELS, MAX_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def outlined_photos(manifest: Manifest, photos: dict[str, bytes], patches: list[SamplePatch]) -> list[dict[str, Any]]:
    """Return the source photos of a set, if in ``photos``, with the outlines of some of ``patches`` on each photo."""
    found = []
    for number, source in enumerate(manifest.sources):
        if source.sha256 in photos:
            corners = [patch.corners for patch in patches if patch.source == number and patch.corners]
            corners = corners[:: max(1, math.ceil(len(corners) / MAX_OUTLINES))]
            outlines = [" ".join(f"{x:.1f},{y:.1f}" for x, y in outline) for outline in corners]
            found.append({"source": source, "uri": data_uri(photos[source.sha256], "jpeg"), "outlines": outlines})
    return found


def heatmap(counts: list[list[int]]) -> bytes:
    """Return a table of counts as a gray PNG. A count of 0 is white. A count equal to the sum of its row is black."""
    table = np.array(counts, dtype=np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    pixels = np.rint(255 * (1 - np.sqrt(shares))).astype(np.uint8)
    scale = max(1, 400 // len(pixels))
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
