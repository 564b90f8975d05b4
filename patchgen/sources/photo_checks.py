"""Find differences between an image as it is read and as a viewer shows it: damage, color space, transparency.

No pixel changes here. Images are untrusted: what cannot be read is not reported.
"""

import contextlib
import dataclasses
import functools
import io
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from manifests.errors import DECODE_ERRORS
from manifests.support.counts import counted
from manifests.untrusted.decode import orientation
from manifests.untrusted.image_headers import png_chunks
from patchgen.sources.photo_damage import jpeg_damage, tiff_damage

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints its notes on metadata to stderr

Kind = Literal["damage", "colors", "cmyk", "alpha", "frames", "gain map", "turned"]

_DECODER_MESSAGE = re.compile(r"(Corrupt JPEG data: .*|Premature end of JPEG.*)|TIFF_Error (.*)")
_GAIN_MAPS = (b"hdrgm:Version", b"urn:iso:std:iso:ts:21496", b"HDRGainMapVersion")
_MP_ENTRIES, _PREVIEW = 0xB002, "Large Thumbnail"
_REDUCED = 254  # TIFF's NewSubfileType
_INTEROPERABILITY, _INDEX = 0xA005, 1  # DCF 2.0: the index R03 names Adobe RGB
_MAX_PROFILE_BYTES = 8 << 20  # the largest in use, of printers, have 3 MB
_TOLERANCE = 3  # of 255: sRGB profiles differ by at most 1, Display P3 and gamma 2.2 from sRGB by much more
_UPRIGHT_BY_DECODER = ("JPEG", "MPO", "PNG", "WEBP", "TIFF")
_SRGB_CICP = (1, 13)
_PRIMARIES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TRANSFERS = {1: "BT.709", 8: "linear", 13: "sRGB", 16: "PQ", 18: "HLG"}
_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.01
_SRGB_CORNERS, _CORNER_TOLERANCE = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), 0.01
_LEVELS = np.array([0, 8, 16, 32, 64, 96, 128, 160, 192, 224, 255], dtype=np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A difference between an image as it is read and as a viewer shows it."""

    kind: Kind
    text: str


def decoder_damage(messages: str) -> Finding | None:
    """Return the damage that a decoder reported on stderr, if any.

    libjpeg and libtiff invent the pixels that they cannot read, and report it only there.
    """
    if (match := _DECODER_MESSAGE.search(messages)) is None:
        return None
    return _damage((match[1] or f"TIFF: {match[2]}").strip()[:200])


def _damage(what: str) -> Finding:
    text = f"is damaged ({what}): a part of the picture may be wrong or gray; get the file again"
    return Finding(kind="damage", text=text)


def header_findings(data: bytes, *, decode: bool = False) -> list[Finding]:
    """Return the differences that an image's header shows; none if Pillow cannot open the image.

    With ``decode`` an alpha channel is decoded, and reported only if a pixel is transparent.
    """
    findings: list[Finding] = []
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # only headers are read
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            for found in (
                *(_damage_finding(image, data), _color_finding(image, data), _alpha_finding(image, data, decode)),
                *(_frame_finding(image, data), _orientation_finding(image)),
            ):
                with contextlib.suppress(*DECODE_ERRORS):
                    findings.extend(found)
    except DECODE_ERRORS:
        pass
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return findings


def _damage_finding(image: Image.Image, data: bytes) -> Iterator[Finding]:
    what = jpeg_damage(data) if image.format in ("JPEG", "MPO") else None
    if what := what or (tiff_damage(image, data) if image.format == "TIFF" else None):
        yield _damage(what)


def _orientation_finding(image: Image.Image) -> Iterator[Finding]:
    if image.format not in _UPRIGHT_BY_DECODER and orientation(image) != 1:
        yield Finding(kind="turned", text=f"its orientation is not applied, as it is {image.format}; save it as PNG")


def _declared_color_space(image: Image.Image, data: bytes) -> str | None:
    """Return the name of the color space in an image's header; None if that is sRGB or not declared.

    In a PNG, cICP goes before iCCP, and that before sRGB, gAMA and cHRM (PNG, third edition, section 11.3.2).
    """
    chunks = takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(data)) if image.format == "PNG" else ()
    if (code := next((data[start:end] for kind, start, end in chunks if kind == b"cICP"), None)) is not None:
        return _cicp_name(code)
    if icc := image.info.get("icc_profile"):
        return profile_name(bytes(icc), gray=image.mode in ("1", "L", "LA", "I;16", "I"))
    if image.format in ("JPEG", "MPO") and image.getexif().get_ifd(_INTEROPERABILITY).get(_INDEX) == "R03":
        return "Adobe RGB (Exif)"
    return _png_curve_name(image) if image.format == "PNG" and "srgb" not in image.info else None


def _cicp_name(code: bytes) -> str | None:
    if len(code) != 4 or tuple(code[:2]) == _SRGB_CICP:
        return None
    primaries = _PRIMARIES.get(code[0], f"primaries {code[0]}")
    transfer = _TRANSFERS.get(code[1], f"transfer {code[1]}")
    return f"{primaries}, {transfer} (cICP)"


def _png_curve_name(image: Image.Image) -> str | None:
    gamma, corners = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None:  # only primaries: viewers ignore them
        return None
    if abs(gamma - _SRGB_GAMMA) > _GAMMA_TOLERANCE:
        return f"gamma {1 / gamma:.3g} (gAMA)" if gamma > 0 else None
    if corners and any(abs(a - b) > _CORNER_TOLERANCE for a, b in zip(corners, _SRGB_CORNERS, strict=False)):
        return "primaries other than sRGB's (cHRM)"
    return None


def _color_finding(image: Image.Image, data: bytes) -> Iterator[Finding]:
    name = _declared_color_space(image, data)
    advice = "convert the photo to sRGB to keep what a viewer shows"
    if image.mode in ("CMYK", "LAB"):
        of = f' and its profile "{name}" is ignored' if name else ""
        yield Finding(kind="cmyk", text=f"is {image.mode}, converted by a plain formula{of}; {advice}")
    elif name:
        text = f'its color profile "{name}" is ignored and colors are read as sRGB; {advice}'
        yield Finding(kind="colors", text=text)


@functools.lru_cache(maxsize=64)  # the images of a folder share a few
def profile_name(icc: bytes, *, gray: bool) -> str | None:
    """Return the description of an ICC profile; None if it shows colors as sRGB does.

    ``gray`` says that the image has only grays. Colors are compared, not names: sRGB profiles have many names.
    """
    if len(icc) > _MAX_PROFILE_BYTES:
        return f"an ICC profile of {len(icc)} bytes"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() in ("RGB", "GRAY") and _is_srgb(profile, gray=gray):
            return None
        name = " ".join((profile.profile.profile_description or "unnamed ICC profile").split())
    except (ImageCms.PyCMSError, *DECODE_ERRORS):
        return "unreadable ICC profile"
    return name if len(name) <= 60 else f"{name[:60]}…"


def _is_srgb(profile: ImageCms.ImageCmsProfile, *, gray: bool) -> bool:
    """Return whether a conversion from ``profile`` to sRGB leaves sample colors as they are."""
    axes = [_LEVELS] * 3 if gray else np.meshgrid(_LEVELS, _LEVELS, _LEVELS)
    image = Image.fromarray(np.stack(axes, axis=-1).reshape(1, -1, 3))
    image = image.convert("L") if profile.profile.xcolor_space.strip() == "GRAY" else image
    srgb, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    converted = ImageCms.profileToProfile(image, profile, srgb, renderingIntent=intent, outputMode="RGB")
    difference = np.asarray(converted).astype(int) - np.asarray(image.convert("RGB"))
    return int(np.abs(difference).max()) <= _TOLERANCE


def _alpha_finding(image: Image.Image, data: bytes, decode: bool) -> Iterator[Finding]:
    if not image.has_transparency_data:
        return
    if decode:
        with Image.open(io.BytesIO(data)) as whole:
            if whole.convert("RGBA").getchannel("A").getextrema()[0] == 255:
                return
    text = "has transparent parts, which are read as the colors under them: alpha is dropped"
    yield Finding(kind="alpha", text=text)


def _frame_finding(image: Image.Image, data: bytes) -> Iterator[Finding]:
    if image.format in ("JPEG", "MPO") and any(mark in data for mark in _GAIN_MAPS):
        text = "has an HDR gain map, which is left out: HDR screens show it brighter"
        yield Finding(kind="gain map", text=text)
        return
    several = getattr(image, "n_frames", 1) > 1
    if several and image.format == "TIFF":  # a smaller copy of the first page may follow it
        image.seek(1)
        several = not getattr(image, "tag_v2", {}).get(_REDUCED, 0) & 1
    if several and image.format == "MPO":
        entries = getattr(image, "mpinfo", {}).get(_MP_ENTRIES, [])
        several = any(_PREVIEW not in str(entry["Attribute"]["MPType"]) for entry in entries[1:])
    if several:
        yield Finding(kind="frames", text="holds several frames or pages, of which the first is read")


def describe_findings(found: Iterable[tuple[str, Finding]]) -> list[str]:
    """Return a line for each kind of finding in many images: that of the first image, and how many more there are."""
    images: dict[Kind, list[str]] = defaultdict(list)
    for where, finding in found:
        images[finding.kind].append(f"{where}: {finding.text}")
    more = ((lines[0], len(lines) - 1) for lines in images.values())
    return [f"{line} (and {counted(others, 'more image')})" if others else line for line, others in more]
