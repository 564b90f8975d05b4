"""Decode untrusted images of all formats that Pillow reads."""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from manifests.errors import DECODE_ERRORS, PatchSetError

# Pillow would print warnings about large images and damaged metadata to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]

MAX_SCANS = 100  # of a progressive JPEG; a scan is a pass over all pixels, and encoders write about ten
MAX_PIXELS = 1 << 25  # maximum width × height of an image; decoding needs up to 8 bytes for each pixel
REPLACE = "the image is corrupt; replace it"  # end of a message about a damaged image
_NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
"""Pillow runs Ghostscript for EPS, reads WMF only on Windows, and cannot decode the other formats."""
_ORIENTATION = 0x0112
_T = Image.Transpose
_UPRIGHT = {  # the transposition that turns an image upright, by EXIF orientation (Exif 2.32, tag 0x0112)
    **{2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM},
    **{5: _T.TRANSPOSE, 6: _T.ROTATE_270, 7: _T.TRANSVERSE, 8: _T.ROTATE_90},
}


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of all formats that ``decode_image`` reads."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - _NOT_READ))


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """Return the file name suffixes of all formats that ``decode_image`` reads, in lower case, with dots."""
    formats = {*image_formats(), "MPO"}  # Pillow opens MPO as a kind of JPEG
    return tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if name in formats))


def is_image_name(name: str) -> bool:
    """Return whether a file name has the suffix of a format that ``decode_image`` reads."""
    return name.lower().endswith(image_suffixes())


def decode_image(data: bytes, where: str) -> Pixels:
    """Return the RGB pixels, uint8 (H, W, 3), of an image. ``where`` is the name of the image in errors.

    The EXIF orientation is applied. 16-bit gray is scaled to 8 bits as ``(v * 255 + 32767) // 65535``. Of a 16-bit
    color, the high byte is kept. Other modes are converted to RGB. Alpha and pictures after the first are ignored.
    """
    with open_image(data, where, image_formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            what = f"the image is too large: {image.width}×{image.height} pixels; scale it to at most {MAX_PIXELS}"
            raise PatchSetError(f"{where}: {what}")
        image.load()  # for TIFF, this also applies the orientation and removes the tag
        turn = _UPRIGHT.get(orientation(image))
        return _rgb(image if turn is None else image.transpose(turn), image.format or "", where)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an open image, 1 to 8. Return 1 if the image has no readable orientation."""
    with contextlib.suppress(*DECODE_ERRORS):  # a damaged EXIF block does not damage the pixels
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    return 1


def _rgb(image: Image.Image, image_format: str, where: str) -> Pixels:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image_format in ("PNG", "PPM")):
        gray = np.asarray(image).astype(np.uint32)
        return np.repeat(((gray * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=2)
    if kind := {"I": "32-bit integers", "F": "floating point", "LAB": "CIE Lab"}.get(mode):
        what = f"the pixels are {kind}, expected gray, RGB or CMYK with 8 or 16 bits for each channel"
        raise PatchSetError(f"{where}: {what}; convert the image to an 8-bit PNG")
    return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def open_image(data: bytes, where: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open an image in one of Pillow's ``formats``. Turn Pillow's errors in the block into PatchSetErrors."""
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
                what = f"the JPEG has {scans} scans, expected at most {MAX_SCANS}"
                raise PatchSetError(f"{where}: {what}; save the image again as a baseline JPEG")
            yield image
    except UnidentifiedImageError as error:
        expected = formats[0] if len(formats) == 1 else "in a format that Pillow reads"
        raise PatchSetError(f"{where}: the data is not a whole image: it is not {expected}; {REPLACE}") from error
    except Image.DecompressionBombError as error:
        what = str(error).rstrip(".")
        raise PatchSetError(f"{where}: the image is too large: {what}; scale it down") from error
    except PatchSetError:
        raise
    except DECODE_ERRORS as error:
        what = f"the data is not a whole image: {str(error) or type(error).__name__}"
        raise PatchSetError(f"{where}: {what}; {REPLACE}") from error
