"""Pictures inside a page: as data URIs, and the photo with the outlines of patches drawn over it."""

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from PIL import Image, ImageOps

from distill.errors import DistillError
from manifests.digest import file_digest
from manifests.schema import Manifest

MOST_PIXELS = 960
"""Of a photo's longer side in a page."""
SHOWN = 24
"""Outlines drawn over a photo; more of them hide it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo for a page: its ``size`` in pixels, and a smaller JPEG of it."""

    size: tuple[int, int]
    jpeg: bytes


def png_uri(data: bytes) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def read_photos(paths: list[Path]) -> dict[str, Photo]:
    """Photos by the SHA-256 of their files, as a manifest names them.

    Raises:
        DistillError: a photo cannot be read.
    """
    photos = {}
    for path in paths:
        try:
            digest = file_digest(path)
            with Image.open(path) as opened:
                photos[digest] = _shrunk(ImageOps.exif_transpose(opened).convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or "it is no picture that Pillow reads"
            raise DistillError(f"{path}: cannot be read: {reason}") from error
    return photos


def _shrunk(image: Image.Image) -> Photo:
    size = image.size
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Photo(size=size, jpeg=buffer.getvalue())


def traced(manifest: Manifest, photos: dict[str, Photo], outlines: list[dict[str, Any]]) -> list[Markup]:
    """Each photo of a set that is among ``photos``, with outlines of patches of it, as SVG."""
    pictures = []
    for number, source in enumerate(manifest.sources):
        photo = photos.get(source.sha256)
        if photo is None:
            continue
        shown = [patch["corners"] for patch in outlines if patch.get("source") == number]
        shown = shown[:: max(1, -(-len(shown) // SHOWN))]
        pictures.append(_svg(photo, shown, f"{source.name} with the outlines of {len(shown)} patches"))
    return pictures


def _svg(photo: Photo, outlines: list[Any], title: str) -> Markup:
    width, height = photo.size
    uri = "data:image/jpeg;base64," + base64.b64encode(photo.jpeg).decode()
    stroke = max(width, height) / 400
    parts = [
        f'<svg class="photo" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">',
        f'<image href="{uri}" width="{width}" height="{height}"/>',
    ]
    for outline in outlines:
        points = " ".join(f"{float(x):.1f},{float(y):.1f}" for x, y in outline)
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
