"""Find differences between an image as it is read and as a viewer shows it: damage, color space, transparency.

No pixel changes here. Images are untrusted: what cannot be read is not reported.
"""

import contextlib
import dataclasses
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Literal

from PIL import Image

from manifests.errors import DECODE_ERRORS
from manifests.untrusted.decode import orientation
from patchgen.sources.color_profiles import declared_color_space

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints its notes on metadata to stderr

Kind = Literal["damage", "colors", "cmyk", "alpha", "frames", "gain map", "turned"]

_SEVERAL: dict[Kind, str] = {
    "damage": "damaged, so that a part of the picture may be wrong",
    "colors": "in a color space other than sRGB, which is read as sRGB",
    "cmyk": "in CMYK or CIELAB, converted without a color profile",
    "alpha": "with an alpha channel, which is dropped",
    "frames": "with several frames or pages, of which the first is read",
    "gain map": "with an HDR gain map, which is left out",
    "turned": "with an orientation that is not applied",
}

_DECODER_MESSAGE = re.compile(r"(Corrupt JPEG data: .*|Premature end of JPEG.*)|TIFF_Error (.*)")
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)  # skips fill bytes and restarts
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC5, 0xC9, 0xCD), (0xC2, 0xC6, 0xCA, 0xCE)
_SOS, _EOI = 0xDA, 0xD9
_GAIN_MAPS = (b"hdrgm:Version", b"urn:iso:std:iso:ts:21496", b"HDRGainMapVersion")
_UPRIGHT_BY_DECODER = ("JPEG", "MPO", "PNG", "WEBP", "TIFF")
_MP_ENTRIES, _PREVIEW = 0xB002, "Large Thumbnail"
_COMPRESSION, _DEFLATE, _STRIPS, _TILES, _REDUCED = 259, (8, 32946), (273, 279), (324, 325), 254
_FILL_ORDER = 266
_BLOCK = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A difference between an image as it is read and as a viewer shows it."""

    kind: Kind
    text: str


def decoder_damage(messages: str) -> Finding | None:
    """Return the damage that a decoder reported on stderr, if any.

    libjpeg and libtiff invent the pixels that they cannot read, and report it only there.
    """
    match = _DECODER_MESSAGE.search(messages)
    return _damage((match[1] or f"TIFF: {match[2]}").strip()[:200]) if match else None


def _damage(what: str) -> Finding:
    text = f"is damaged ({what}): a part of the picture may be wrong or gray; get the file again"
    return Finding(kind="damage", text=text)


def header_findings(data: bytes, *, decode: bool = False) -> list[Finding]:
    """Return the differences that an image's header shows; none if Pillow cannot open the image.

    With ``decode`` an alpha channel is decoded, and reported only if a pixel is transparent.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # only headers are read
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            return list(_findings(image, data, decode=decode))
    except DECODE_ERRORS:
        return []
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _findings(image: Image.Image, data: bytes, *, decode: bool) -> Iterator[Finding]:
    with contextlib.suppress(*DECODE_ERRORS):
        what = _jpeg_damage(data) if image.format in ("JPEG", "MPO") else None
        if what := what or (_tiff_damage(image, data) if image.format == "TIFF" else None):
            yield _damage(what)
    with contextlib.suppress(*DECODE_ERRORS):
        yield from _color_findings(image, data)
    with contextlib.suppress(*DECODE_ERRORS):
        if image.has_transparency_data and not (decode and _is_opaque(data)):
            text = "has transparent parts, which are read as the colors under them: alpha is dropped"
            yield Finding(kind="alpha", text=text)
    with contextlib.suppress(*DECODE_ERRORS):
        if image.format in ("JPEG", "MPO") and any(mark in data for mark in _GAIN_MAPS):
            text = "has an HDR gain map, which is left out: HDR screens show it brighter"
            yield Finding(kind="gain map", text=text)
        elif _has_more_pictures(image):
            yield Finding(kind="frames", text="holds several frames or pages, of which the first is read")
    with contextlib.suppress(*DECODE_ERRORS):
        if image.format not in _UPRIGHT_BY_DECODER and orientation(image) != 1:
            text = f"its orientation is not applied, as it is {image.format}; save it as PNG"
            yield Finding(kind="turned", text=text)


def _color_findings(image: Image.Image, data: bytes) -> Iterator[Finding]:
    name = declared_color_space(image, data)
    advice = "convert the photo to sRGB to keep what a viewer shows"
    if image.mode in ("CMYK", "LAB"):
        of = f' and its profile "{name}" is ignored' if name else ""
        yield Finding(kind="cmyk", text=f"is {image.mode}, converted by a plain formula{of}; {advice}")
    elif name:
        text = f'its color profile "{name}" is ignored and colors are read as sRGB; {advice}'
        yield Finding(kind="colors", text=text)


def _is_opaque(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return lowest == 255


def _has_more_pictures(image: Image.Image) -> bool:
    """Return whether a file has more pictures than the first one, its previews and its smaller copies."""
    if image.format == "MPO":
        entries = getattr(image, "mpinfo", {}).get(_MP_ENTRIES, [])
        return any(_PREVIEW not in str(entry["Attribute"]["MPType"]) for entry in entries[1:])
    if image.format == "TIFF":
        try:
            image.seek(1)
        except EOFError:
            return False
        return not getattr(image, "tag_v2", {}).get(_REDUCED, 0) & 1
    return bool(getattr(image, "is_animated", False))


def _jpeg_damage(data: bytes) -> str | None:
    """Return what a JPEG's main picture lacks: its end, or scans of channels or finer detail.

    Decoders report neither (ITU-T T.81, annexes B and G).
    """
    components, progressive = b"", False
    missing_bits: dict[tuple[int, int], int] = {}
    at, marker = 2, 0
    while True:
        match = _MARKER.search(data, at)
        if match is None:
            return "the JPEG has no end"
        marker, at = match[1][0], match.end()
        if marker == _EOI:
            break
        length = struct.unpack(">H", data[at : at + 2])[0]
        segment = data[at + 2 : at + length]
        if marker in (*_SEQUENTIAL, *_PROGRESSIVE):
            components, progressive = segment[6::3][: segment[5]], marker in _PROGRESSIVE
        elif marker == _SOS:
            first, last, bits = segment[-3:] if progressive else (0, 63, 0)
            for component in segment[1 : 1 + 2 * segment[0] : 2]:
                missing_bits.update({(component, k): bits & 15 for k in range(first, min(last, 63) + 1)})
        at += length
    if any(missing_bits.get((component, k), 1) for component in components for k in range(64)):
        return "the JPEG lacks its last scans"
    return None


def _tiff_damage(image: Image.Image, data: bytes) -> str | None:
    """Return whether the checksum of a deflated strip or tile is wrong, which libtiff does not check."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) not in _DEFLATE or tags.get(_FILL_ORDER, 1) != 1:
        return None
    starts, sizes = next(((tags[a], tags[b]) for a, b in (_STRIPS, _TILES) if a in tags and b in tags), ((), ()))
    view = memoryview(data)
    for start, size in zip(starts, sizes, strict=True):
        stream = zlib.decompressobj()
        try:
            for at in range(start, start + size, _BLOCK):
                rest: bytes | memoryview = view[at : min(at + _BLOCK, start + size)]
                while rest and not stream.eof:
                    stream.decompress(rest, 16 * _BLOCK)
                    rest = stream.unconsumed_tail
        except zlib.error:
            return "TIFF: a strip of pixels does not inflate to its checksum"
    return None


class Tally:
    """Counts the findings of many images, for one line of each kind."""

    def __init__(self) -> None:
        self._found: dict[Kind, tuple[int, str]] = {}

    def add(self, where: str, findings: list[Finding]) -> None:
        """Add the findings of the image ``where``."""
        for kind in {finding.kind for finding in findings}:
            count, first = self._found.get(kind, (0, where))
            self._found[kind] = count + 1, first

    def lines(self) -> list[str]:
        """Return a line for each kind, with the number of images and the first of them."""
        return [
            f"{count} {'image is' if count == 1 else 'images are'} {_SEVERAL[kind]}, such as {first}"
            for kind, (count, first) in self._found.items()
        ]
