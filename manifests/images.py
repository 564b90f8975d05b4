"""Encoded images to pixels: a set's patches, and the test images they are compared with."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from manifests.errors import PatchSetError

ANY = ("PNG", "JPEG", "WEBP", "PPM", "BMP")
_PILLOW = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "ppm": "PPM"}


def decode_image(data: bytes, where: str) -> npt.NDArray[np.uint8]:
    """RGB uint8 pixels (H, W, 3) of an image in any of the formats of ``ANY``, converted if need be.

    Raises:
        PatchSetError: no whole image; ``where`` names it.
    """
    with _opened(data, where, ANY) as image:
        return np.asarray(image.convert("RGB"))


def decode_patch(data: bytes, where: str, size: int, image_format: str) -> npt.NDArray[np.uint8]:
    """RGB uint8 pixels (size, size, 3) of a patch as a set must hold it; nothing else is decoded.

    Raises:
        PatchSetError: no whole image, another format or size, not RGB; ``where`` names it.
    """
    with _opened(data, where, (_PILLOW[image_format],)) as image:
        _require_patch(image, where, size)
        return np.asarray(image)


def check_patch(data: bytes, where: str, size: int, image_format: str) -> None:
    """Look at the header of an encoded patch alone: its format, size and colours.

    Raises:
        PatchSetError: as ``decode_patch``, but that damage behind the header is not seen.
    """
    with _opened(data, where, (_PILLOW[image_format],)) as image:
        _require_patch(image, where, size)


def _require_patch(image: Image.Image, where: str, size: int) -> None:
    if image.size != (size, size):
        width, height = image.size
        raise PatchSetError(f"{where}: the image is {width}×{height}, expected {size}×{size}")
    if image.mode != "RGB" or getattr(image, "n_frames", 1) != 1:
        raise PatchSetError(f"{where}: the image is {image.mode}, expected one picture in RGB of 8 bits a channel")


@contextlib.contextmanager
def _opened(data: bytes, where: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            yield image
    except UnidentifiedImageError as error:
        names = " or ".join(", ".join(formats).rsplit(", ", 1))
        raise PatchSetError(f"{where}: not a whole image: no {names}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PatchSetError(f"{where}: not a whole image: {error}") from error
