"""Pictures inside a page: as data URIs, and the photo with the outlines of patches drawn over it."""

import base64
import io
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from PIL import Image, ImageOps

from distill.errors import DistillError
from distill.report.run_files import Place
from manifests.format.digest import file_digest
from manifests.format.schema import Manifest, Source
from manifests.support.counts import counted

MOST_PIXELS = 960
"""Of a photo's longer side in a page."""
SHOWN = 24
"""Outlines drawn over a photo; more of them hide it."""


def png_uri(data: bytes) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def read_photos(paths: list[Path], known: set[str]) -> dict[str, bytes]:
    """Photos as small JPEGs, by the SHA-256 of their files; ``known`` are those that the runs' manifests name.

    Raises:
        DistillError: a photo cannot be read, or is of none of the sets.
    """
    photos = {}
    for path in paths:
        try:
            digest = file_digest(path)
        except OSError as error:
            raise DistillError(f"{path}: cannot be read: {error.strerror}") from error
        if digest not in known:
            raise DistillError(f"{path}: no set of these runs was made from this file; give the very photo")
        photos[digest] = _small(path)
    return photos


def _small(path: Path) -> bytes:
    """A photo of a known set, however many pixels it has."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits, which convert() would cut off instead of scaling
                image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
            image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DistillError(f"{path}: Pillow cannot read it: {error}; leave --image out") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def traced(manifest: Manifest, photos: dict[str, bytes], places: list[Place]) -> list[Markup]:
    """Each photo of a set that is among ``photos``, with outlines of patches of it, as SVG."""
    pictures = []
    for number, source in enumerate(manifest.sources):
        if source.sha256 in photos:
            shown = [place.corners for place in places if place.source == number and place.corners]
            shown = shown[:: max(1, -(-len(shown) // SHOWN))]
            pictures.append(_svg(source, photos[source.sha256], shown))
    return pictures


def _svg(source: Source, jpeg: bytes, outlines: list[list[list[float]]]) -> Markup:
    title = escape(f"{source.name} with the outlines of {counted(len(outlines), 'patch')}")
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    stroke = max(source.width, source.height) / 400
    parts = [
        f'<svg class="photo" viewBox="0 0 {source.width} {source.height}" role="img" aria-label="{title}">',
        f'<image href="{uri}" width="{source.width}" height="{source.height}"/>',
    ]
    for outline in outlines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
        for colour, thickness in (("#000", 2 * stroke), ("#fff", stroke)):  # seen on dark and on bright
            parts.append(f'<polygon points="{points}" fill="none" stroke="{colour}" stroke-width="{thickness:.2f}"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - every text in it is escaped


def heatmap(counts: list[list[int]]) -> bytes:
    """A table of counts as a gray PNG, each row to its own sum: white is none of it, black all."""
    table = np.array(counts, dtype=np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    pixels = np.rint(255 * (1 - np.sqrt(shares))).astype(np.uint8)
    scale = max(1, 400 // len(pixels))
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
