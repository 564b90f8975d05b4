"""Find out whether an image declares a color space other than sRGB, which neither OpenCV nor Pillow applies.

Sources: ICC.1:2022 (profiles); PNG, third edition, section 11.3.2 (cICP, iCCP, sRGB, gAMA, cHRM, in this order of
precedence); Exif 2.32 with DCF 2.0 (Adobe RGB named by the interoperability index R03).
"""

import functools
import io
from itertools import takewhile

import numpy as np
from PIL import Image, ImageCms

from manifests.errors import DECODE_ERRORS
from manifests.untrusted.image_headers import png_chunks

MAX_PROFILE_BYTES = 8 << 20
"""Bytes of a profile that is read. The largest in use, of printers, have 3 MB."""

_TOLERANCE = 3
"""Of 255. sRGB profiles of different vendors differ by at most 1, Display P3 and gamma 2.2 from sRGB by much more."""
_NAME_LETTERS = 60
_LEVELS = np.array([0, 8, 16, 32, 64, 96, 128, 160, 192, 224, 255], dtype=np.uint8)
_INTEROPERABILITY, _INDEX = 0xA005, 1

_SRGB_CICP = (1, 13)
_PRIMARIES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TRANSFERS = {1: "BT.709", 8: "linear", 13: "sRGB", 16: "PQ", 18: "HLG"}
_SRGB_GAMMA, _GAMMA_TOLERANCE = 1 / 2.2, 0.01
_SRGB_CORNERS = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_CORNER_TOLERANCE = 0.01


def declared_color_space(image: Image.Image, data: bytes) -> str | None:
    """Return the name of the color space in an image's header; None if that is sRGB or not declared.

    ``image`` is opened and not yet decoded, ``data`` are its bytes.
    """
    if image.format == "PNG":
        chunks = takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(data))
        if (code := next((data[start:end] for kind, start, end in chunks if kind == b"cICP"), None)) is not None:
            return _cicp_name(code)
    if icc := image.info.get("icc_profile"):
        return profile_name(bytes(icc), gray=image.mode in ("1", "L", "LA", "I;16", "I"))
    if image.format == "PNG" and "srgb" not in image.info:
        return _png_curve_name(image)
    if image.format in ("JPEG", "MPO") and image.getexif().get_ifd(_INTEROPERABILITY).get(_INDEX) == "R03":
        return "Adobe RGB (Exif)"
    return None


@functools.lru_cache(maxsize=64)  # the images of a folder share a few
def profile_name(icc: bytes, *, gray: bool) -> str | None:
    """Return the description of an ICC profile; None if it shows colors as sRGB does.

    ``gray`` says that the image has only grays. Colors are compared, not names: sRGB profiles have many names.
    """
    if len(icc) > MAX_PROFILE_BYTES:
        return f"an ICC profile of {len(icc)} bytes"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        description = profile.profile.profile_description or "unnamed ICC profile"
        if profile.profile.xcolor_space.strip() in ("RGB", "GRAY") and _is_srgb(profile, gray=gray):
            return None
    except (ImageCms.PyCMSError, *DECODE_ERRORS):
        return "unreadable ICC profile"
    name = " ".join(description.split())
    return name if len(name) <= _NAME_LETTERS else f"{name[:_NAME_LETTERS]}…"


def _is_srgb(profile: ImageCms.ImageCmsProfile, *, gray: bool) -> bool:
    """Return whether a conversion from ``profile`` to sRGB leaves sample colors as they are."""
    axes = np.meshgrid(_LEVELS, _LEVELS, _LEVELS)
    samples = np.stack([_LEVELS] * 3, axis=1)[None] if gray else np.stack(axes, axis=-1).reshape(1, -1, 3)
    mode = "L" if profile.profile.xcolor_space.strip() == "GRAY" else "RGB"
    image = Image.fromarray(samples).convert(mode)
    converted = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    if converted is None:
        return False
    difference = np.asarray(converted).astype(int) - np.asarray(image.convert("RGB"))
    return int(np.abs(difference).max()) <= _TOLERANCE


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
