"""Find differences between the pixels that are read from an image and those that a viewer shows.

The checks change no pixel. Images are untrusted: parts that cannot be read are not reported.
"""

import contextlib
import dataclasses
import functools
import io
import logging
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

Kind = Literal["damage", "colors", "cmyk", "alpha", "frames"]

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
    """Return the differences that follow from an image's header. Return none if Pillow cannot open the image.

    With ``decode`` an alpha channel is decoded. It is then reported only if a pixel is transparent.
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
    """Find the zeros that an interrupted download leaves. Decoders read zeros as gray pixels."""
    if image.format in ("JPEG", "MPO") and data.endswith(bytes(4)) and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        yield damage("the JPEG ends in zeros")


def _declared_color_space(image: Image.Image, data: bytes) -> str | None:
    """Return the name of the color space in an image's header. Return None for sRGB or without a declaration.

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
        yield Finding(kind="cmyk", text=f"{image.mode} pixels are converted by a simple formula{of}; {advice}")
    elif name:
        text = f'the color profile "{name}" is ignored, and colors are read as sRGB; {advice}'
        yield Finding(kind="colors", text=text)


@functools.lru_cache(maxsize=64)  # the images of a folder often have equal profiles
def profile_name(icc: bytes, *, gray: bool) -> str | None:
    """Return the description of an ICC profile. Return None if the profile shows colors as sRGB does.

    ``gray`` is true for an image that has only grays. Colors are compared, because sRGB profiles have many names.
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
    several = getattr(image, "n_frames", 1) > 1
    if several and image.format == "TIFF":  # the second page may be a smaller copy of the first
        image.seek(1)
        several = not getattr(image, "tag_v2", {}).get(_REDUCED, 0) & 1
    if several and image.format == "MPO":
        entries = getattr(image, "mpinfo", {}).get(_MP_ENTRIES, [])
        several = any(_PREVIEW not in str(entry["Attribute"]["MPType"]) for entry in entries[1:])
    if several:
        yield Finding(
            kind="frames", text="only the first of several frames or pages is read; save another frame as a file"
        )


def describe_findings(found: Iterable[tuple[str, Finding]]) -> list[str]:
    """Return one line for each kind of finding: the first image with this finding, and the number of other images."""
    images: dict[Kind, list[str]] = defaultdict(list)
    for where, finding in found:
        images[finding.kind].append(f"{where}: {finding.text}")
    more = ((lines[0], len(lines) - 1) for lines in images.values())
    return [f"{line} (and {counted(others, 'more image')})" if others else line for line, others in more]
