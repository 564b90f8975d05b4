"""Photos: read a file into RGB uint8 pixels as a viewer would show them."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.digest import pixel_digest
from manifests.files import read_regular_file
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SIDE

MAX_FILE_BYTES = 2 << 30
_TOO_LITTLE_MEMORY = "too little memory for its pixels; scale it down or use a machine with more"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
    """A decoded photo: ``pixels`` RGB uint8 of shape (height, width, 3); digests are SHA-256 as hex."""

    path: Path
    pixels: npt.NDArray[np.uint8]
    sha256: str
    pixels_sha256: str

    @property
    def width(self) -> int:
        """Width in pixels, after the orientation tag was applied."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels, after the orientation tag was applied."""
        return int(self.pixels.shape[0])


def read_photo(path: Path) -> Photo:
    """Read a JPEG, PNG, WebP, TIFF, BMP or PPM file.

    EXIF orientation is applied, grayscale becomes RGB, CMYK is converted, an alpha channel is dropped, and
    16 bits a channel are scaled to 8 with exact rounding.

    Raises:
        PatchgenError: the file is missing, unreadable, empty, truncated, no image, in floating point, or
            larger than 32,766 pixels on a side.
    """
    try:
        data = read_regular_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise PatchgenError(f"{path}: cannot be read: {error.strerror}; give the path of an image") from error
    pixels = decode_photo(data, str(path))
    return Photo(
        path=path,
        pixels=pixels,
        sha256=hashlib.sha256(data).hexdigest(),
        pixels_sha256=pixel_digest(pixels).hex(),
    )


def decode_photo(data: bytes, where: str) -> npt.NDArray[np.uint8]:
    """RGB uint8 pixels (H, W, 3) of an image's bytes, converted as ``read_photo`` says.

    Raises:
        PatchgenError: as there; ``where`` names it.
    """
    if not data:
        raise PatchgenError(f"{where}: the file is empty, expected an image")
    try:
        with _quiet():
            # IMREAD_COLOR_RGB would leave 16-bit colour TIFFs undefined (OpenCV 4.14).
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if decoded is None:
            raise PatchgenError(
                f"{where}: not a whole image ({len(data)} bytes): expected a complete JPEG, PNG, WebP, TIFF, BMP or "
                "PPM file; open it in a viewer and save it again"
            )
        return _eight_bits(decoded, where)
    except cv2.error as error:
        raise PatchgenError(f"{where}: {_reason(error)}") from error
    except MemoryError as error:
        raise PatchgenError(f"{where}: {_TOO_LITTLE_MEMORY}") from error


def _eight_bits(decoded: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    """RGB uint8 pixels (H, W, 3) of BGR ones."""
    if max(decoded.shape) > MAX_SIDE:
        height, width = decoded.shape[:2]
        raise PatchgenError(f"{where}: {width}×{height} pixels, at most {MAX_SIDE} a side; scale it down")
    decoded = np.ascontiguousarray(decoded[..., ::-1])
    if decoded.dtype == np.uint16:
        return ((decoded.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if decoded.dtype != np.uint8:
        raise PatchgenError(
            f"{where}: pixels are {decoded.dtype}, expected 8 or 16 bits a channel; convert it to PNG"
        )
    return decoded


def _reason(error: cv2.error) -> str:
    """What OpenCV has against an image, and what to do."""
    if error.code == cv2.Error.StsNoMem:
        return _TOO_LITTLE_MEMORY
    reason = str(error).strip().splitlines()[-1].split("error: ")[-1]
    if "validateInputImageSize" in reason:
        return f"too many pixels, expected at most {MAX_SIDE} a side; scale it down"
    return f"not readable as an image: {reason}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV and the C libraries below it from writing lines of their own to stderr."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
        cv2.utils.logging.setLogLevel(level)
