"""Find differences between the pixels that are read from an image and those that a viewer shows.

The checks change no pixel. If a check fails because the image is damaged, it reports nothing.
"""

import contextlib
import dataclasses
import functools
import io
import logging
import re
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from manifests.errors import DECODE_ERRORS
from manifests.support.counts import counted
from manifests.untrusted.images import png_chunks

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow prints notes on metadata to stderr

Kind = Literal["damage", "colors", "cmyk", "alpha", "frames", "gain map"]

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)  # skips fill bytes and restart markers
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC5, 0xC9, 0xCD), (0xC2, 0xC6, 0xCA, 0xCE)
_SCAN, _END = 0xDA, 0xD9
_GAIN_MAPS = (b"hdrgm:Version", b"urn:iso:std:iso:ts:21496", b"HDRGainMapVersion")
_MP_ENTRIES, _PREVIEW = 0xB002, "Large Thumbnail"
_REDUCED = 254  # TIFF's NewSubfileType
_INTEROPERABILITY, _INDEX = 0xA005, 1  # DCF 2.0: the index R03 means Adobe RGB
_MAX_PROFILE_BYTES = 8 << 20  # the largest profiles in use, of printers, have 3 MB
_TOLERANCE = 3  # of 255: sRGB profiles differ from sRGB by at most 1, Display P3 and gamma 2.2 by much more
_SRGB_CICP = (1, 13)
_PRIMARIES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TRANSFERS = {1: "BT.709", 8: "linear", 13: "sRGB", 16: "PQ", 18: "HLG"}
_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.01
_SRGB_CORNERS, _CORNER_TOLERANCE = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), 0.01
_LEVELS = np.array([0, 8, 16, 32, 64, 96, 128, 160, 192, 224, 255], dtype=np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A difference between the pixels that are read and those that a viewer shows."""

    kind: Kind
    text: str  # printed after the name of the file


def damage(what: str) -> Finding:
    """Return the finding for a damaged file."""
    text = f"the file is damaged ({what}): a part of the picture may be wrong or gray; download the file again"
    return Finding(kind="damage", text=text)


def header_findings(data: bytes, *, decode: bool = False) -> list[Finding]:
    """Return the differences that follow from an image's headers. Return [] if Pillow cannot open the image.

    Report every alpha channel. With ``decode``, decode the channel, and report it only if a pixel is transparent.
    """
    findings: list[Finding] = []
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # only headers are read
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            for check in (_find_damage, _find_colors, _find_alpha, _find_frames):
                with contextlib.suppress(*DECODE_ERRORS):
                    findings.extend(check(image, data, decode))
    except DECODE_ERRORS:
        pass
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return findings


def _find_damage(image: Image.Image, data: bytes, decode: bool) -> Iterator[Finding]:
    if image.format in ("JPEG", "MPO") and (what := _missing_part(data)) is not None:
        yield damage(what)


def _missing_part(data: bytes) -> str | None:
    """Return which part the first picture of a JPEG lacks: the end, or scans. Return None if the picture is complete.

    A progressive JPEG stores a channel in several scans, from coarse to fine. If the last scans are missing, decoders
    return a coarse picture and report no error (ITU-T T.81, annexes B and G).
    """
    channels, progressive, at = b"", False, 2
    missing_bits: dict[tuple[int, int], int] = {}  # by channel and number of the DCT coefficient
    while (match := _MARKER.search(data, at)) is not None and match[1][0] != _END:
        marker, at = match[1][0], match.end()
        length = struct.unpack(">H", data[at : at + 2])[0]
        segment = data[at + 2 : at + length]
        if marker in (*_SEQUENTIAL, *_PROGRESSIVE):
            channels, progressive = segment[6::3][: segment[5]], marker in _PROGRESSIVE
        elif marker == _SCAN:
            first, last, bits = segment[-3:] if progressive else (0, 63, 0)
            for channel in segment[1 : 1 + 2 * segment[0] : 2]:
                missing_bits.update({(channel, k): bits & 15 for k in range(first, min(last, 63) + 1)})
        at += length
    if match is None:
        return "the JPEG has no end marker"
    incomplete = any(missing_bits.get((channel, k), 1) for channel in channels for k in range(64))
    return "the JPEG lacks its last scans" if incomplete else None


def _declared_color_space(image: Image.Image, data: bytes) -> str | None:
    """Return the name of the color space in an image's header. Return None for sRGB or no declared space.

    In a PNG, cICP has priority over iCCP, and iCCP over sRGB, gAMA and cHRM (PNG, third edition, section 11.3.2).
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
    if gamma is None:  # viewers ignore primaries without a gamma
        return None
    if abs(gamma - _SRGB_GAMMA) > _GAMMA_TOLERANCE:
        return f"gamma {1 / gamma:.3g} (gAMA)" if gamma > 0 else None
    if corners and any(abs(a - b) > _CORNER_TOLERANCE for a, b in zip(corners, _SRGB_CORNERS, strict=False)):
        return "primaries other than sRGB's (cHRM)"
    return None


def _find_colors(image: Image.Image, data: bytes, decode: bool) -> Iterator[Finding]:
    name = _declared_color_space(image, data)
    advice = "convert the photo to sRGB to preserve the colors that a viewer shows"
    if image.mode in ("CMYK", "LAB"):
        of = f', and the color profile "{name}" is ignored' if name else ""
        yield Finding(kind="cmyk", text=f"{image.mode} pixels are converted to RGB by a simple formula{of}; {advice}")
    elif name:
        text = f'the color profile "{name}" is ignored, and colors are read as sRGB; {advice}'
        yield Finding(kind="colors", text=text)


@functools.lru_cache(maxsize=64)  # the images of a folder often have equal profiles
def profile_name(icc: bytes, *, gray: bool) -> str | None:
    """Return the description of an ICC profile. Return None if the profile shows colors as sRGB does.

    ``gray`` is true for a gray image. Colors are compared, not names, because sRGB profiles have many names.
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
    """Return whether a conversion from ``profile`` to sRGB does not change sample colors."""
    axes = [_LEVELS] * 3 if gray else np.meshgrid(_LEVELS, _LEVELS, _LEVELS)
    image = Image.fromarray(np.stack(axes, axis=-1).reshape(1, -1, 3))
    image = image.convert("L") if profile.profile.xcolor_space.strip() == "GRAY" else image
    srgb, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    converted = ImageCms.profileToProfile(image, profile, srgb, renderingIntent=intent, outputMode="RGB")
    difference = np.asarray(converted).astype(int) - np.asarray(image.convert("RGB"))
    return int(np.abs(difference).max()) <= _TOLERANCE


def _find_alpha(image: Image.Image, data: bytes, decode: bool) -> Iterator[Finding]:
    if not image.has_transparency_data:
        return
    if decode:
        with Image.open(io.BytesIO(data)) as whole:
            if whole.convert("RGBA").getchannel("A").getextrema()[0] == 255:
                return
    text = "the alpha channel is dropped, so transparent parts show their hidden colors; save the image without alpha"
    yield Finding(kind="alpha", text=text)


def _find_frames(image: Image.Image, data: bytes, decode: bool) -> Iterator[Finding]:
    if image.format in ("JPEG", "MPO") and any(name in data for name in _GAIN_MAPS):
        text = "the HDR gain map is ignored, so an HDR screen shows the photo brighter than the patches"
        yield Finding(kind="gain map", text=f"{text}; save the photo without HDR to see the colors of the patches")
        return
    several = getattr(image, "n_frames", 1) > 1
    if several and image.format == "TIFF":  # the second page may be a smaller copy of the first
        image.seek(1)
        several = not getattr(image, "tag_v2", {}).get(_REDUCED, 0) & 1
    if several and image.format == "MPO":
        entries = getattr(image, "mpinfo", {}).get(_MP_ENTRIES, [])
        several = any(_PREVIEW not in str(entry["Attribute"]["MPType"]) for entry in entries[1:])
    if several:
        text = "only the first of several frames or pages is read; to use another frame, save this frame as a file"
        yield Finding(kind="frames", text=text)


def describe_findings(found: Iterable[tuple[str, Finding]]) -> list[str]:
    """Return one line for each kind of finding: the first image with this kind, and the number of other images."""
    images: dict[Kind, list[str]] = defaultdict(list)
    for where, finding in found:
        images[finding.kind].append(f"{where}: {finding.text}")
    more = ((lines[0], len(lines) - 1) for lines in images.values())
    return [f"{line} (and {counted(others, 'more image')})" if others else line for line, others in more]
