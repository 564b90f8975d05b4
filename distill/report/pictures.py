"""Pictures of a page: data URIs, heat maps, and photos with the outlines of patches."""

import base64
import io
import math
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from PIL import Image, ImageOps

from distill.errors import DistillError
from distill.report.run_files import SamplePatch
from manifests.format.digest import file_digest
from manifests.format.schema import Manifest, Source
from manifests.support.counts import counted

MAX_PIXELS = 960
"""Maximum length of a photo's longer side in a page."""
MAX_OUTLINES = 24
"""Maximum outlines over a photo; more would hide it."""


def data_uri(data: bytes, kind: str = "png") -> str:
    """Return an image file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def read_photos(paths: list[Path], known: set[str]) -> dict[str, bytes]:
    """Return photos as small JPEGs, by the SHA-256 of their files; ``known`` are those in the runs' manifests.

    Raises:
        DistillError: a photo cannot be read, or belongs to none of the sets.
    """
    photos = {}
    for path in paths:
        try:
            digest = file_digest(path)
        except OSError as error:
            raise DistillError(f"{path}: cannot be read: {error.strerror}") from error
        if digest not in known:
            raise DistillError(f"{path}: no set of these runs was built from this file; give the source photo itself")
        photos[digest] = _small_jpeg(path)
    return photos


def _small_jpeg(path: Path) -> bytes:
    """Return a photo of a known set as a small JPEG, without Pillow's limit of pixels."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits, which convert() would clip instead of scaling
                image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
            image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DistillError(f"{path}: Pillow cannot read it: {error}; leave --image out") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    image.thumbnail((MAX_PIXELS, MAX_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def draw_outlines(manifest: Manifest, photos: dict[str, bytes], patches: list[SamplePatch]) -> list[Markup]:
    """Return each photo of a set that is in ``photos`` as SVG, with outlines of some of its patches."""
    pictures = []
    for number, source in enumerate(manifest.sources):
        if source.sha256 in photos:
            outlines = [patch.corners for patch in patches if patch.source == number and patch.corners]
            outlines = outlines[:: max(1, math.ceil(len(outlines) / MAX_OUTLINES))]
            pictures.append(_photo_svg(source, photos[source.sha256], outlines))
    return pictures


def _photo_svg(source: Source, jpeg: bytes, outlines: list[list[list[float]]]) -> Markup:
    title = escape(f"{source.name} with the outlines of {counted(len(outlines), 'patch')}")
    stroke = max(source.width, source.height) / 400
    parts = [
        f'<svg class="photo" viewBox="0 0 {source.width} {source.height}" role="img" aria-label="{title}">',
        f'<image href="{data_uri(jpeg, "jpeg")}" width="{source.width}" height="{source.height}"/>',
    ]
    for outline in outlines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
        for color, width in (("#000", 2 * stroke), ("#fff", stroke)):  # visible on dark and on bright
            parts.append(f'<polygon points="{points}" fill="none" stroke="{color}" stroke-width="{width:.2f}"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - every text in it is escaped


def heatmap(counts: list[list[int]]) -> bytes:
    """Return a matrix of counts as a gray PNG, relative to the sum of each row: white is 0, black is all."""
    table = np.array(counts, dtype=np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    pixels = np.rint(255 * (1 - np.sqrt(shares))).astype(np.uint8)
    scale = max(1, 400 // len(pixels))
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
