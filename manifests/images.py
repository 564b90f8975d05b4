"""Encoded images to pixels: a set's patches, and the test images they are compared with."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from manifests.errors import PatchSetError


def decode_image(data: bytes, where: str, size: int | None) -> npt.NDArray[np.uint8]:
    """RGB uint8 pixels (H, W, 3) of an encoded image; nothing is decoded unless H = W = ``size``, if given.

    Raises:
        PatchSetError: no whole image, or of another size; ``where`` names it.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "PPM", "BMP")) as image:
            if size is not None and image.size != (size, size):
                width, height = image.size
                raise PatchSetError(f"{where}: the image is {width}×{height}, expected {size}×{size}")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise PatchSetError(f"{where}: not a whole image: no PNG, JPEG, WebP, PPM or BMP") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PatchSetError(f"{where}: not a whole image: {error}") from error
