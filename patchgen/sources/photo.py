"""Read a photo file into RGB uint8 pixels as a viewer would show it."""

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.format.digest import pixel_digest
from manifests.support.console import note
from manifests.support.counts import counted
from manifests.support.files import read_regular_file
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SIDE
from patchgen.sources.photo_checks import Finding, decoder_damage, header_findings

MAX_FILE_BYTES = 2 << 30
_MAX_MESSAGE_BYTES = 1 << 16
_TOO_LITTLE_MEMORY = "too little memory for its pixels; scale it down or use a machine with more"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
    """A decoded photo: ``pixels`` RGB uint8 of shape (height, width, 3); digests are SHA-256 as hex.

    ``findings`` say how its pixels differ from what a viewer shows.
    """

    path: Path
    pixels: npt.NDArray[np.uint8]
    sha256: str
    pixels_sha256: str
    findings: tuple[Finding, ...] = ()

    @property
    def width(self) -> int:
        """Return the width in pixels, after the orientation tag was applied."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Return the height in pixels, after the orientation tag was applied."""
        return int(self.pixels.shape[0])


def read_photos(paths: Iterable[Path]) -> list[Photo]:
    """Read photos, and print a line to stderr for each difference between their pixels and what a viewer shows.

    Raises:
        PatchgenError: see ``read_photo``.
    """
    photos = [read_photo(path) for path in paths]
    for line in dict.fromkeys(f"{photo.path}: {found.text}" for photo in photos for found in photo.findings):
        note(line)
    return photos


def read_photo(path: Path) -> Photo:
    """Read a JPEG, PNG, WebP, TIFF, BMP or PPM file.

    EXIF orientation is applied, grayscale becomes RGB, CMYK is converted, an alpha channel is dropped, and
    16 bits a channel are scaled to 8 with exact rounding. Color profiles are ignored.

    Raises:
        PatchgenError: the file is missing, unreadable, empty, truncated, not an image, in floating point, or
            larger than 32,766 pixels on a side.
    """
    try:
        data = read_regular_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise PatchgenError(f"{path}: cannot be read: {error.strerror}; give the path of an image") from error
    pixels, messages = _decode(data, str(path))
    findings = header_findings(data, decode=True)
    if (damage := decoder_damage(messages)) is not None:
        findings = [damage, *(finding for finding in findings if finding.kind != "damage")]
    return Photo(
        path=path,
        pixels=pixels,
        sha256=hashlib.sha256(data).hexdigest(),
        pixels_sha256=pixel_digest(pixels).hex(),
        findings=tuple(findings),
    )


def _decode(data: bytes, where: str) -> tuple[npt.NDArray[np.uint8], str]:
    """Return RGB uint8 pixels (H, W, 3), and what decoders wrote to stderr meanwhile."""
    if not data:
        raise PatchgenError(f"{where}: the file is empty, expected an image")
    messages: list[str] = []
    try:
        with _captured_stderr(messages):
            # IMREAD_COLOR_RGB would leave 16-bit color TIFFs undefined (OpenCV 4.14).
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if decoded is None:
            raise PatchgenError(
                f"{where}: not a whole image ({counted(len(data), 'byte')}): expected a complete JPEG, PNG, WebP, "
                "TIFF, BMP or PPM file; open it in a viewer and save it again"
            )
        return _eight_bits(decoded, where), "".join(messages)
    except cv2.error as error:
        raise PatchgenError(f"{where}: {_reason(error)}") from error
    except MemoryError as error:
        raise PatchgenError(f"{where}: {_TOO_LITTLE_MEMORY}") from error


def _eight_bits(decoded: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    """Convert BGR pixels of 8 or 16 bits to RGB uint8 pixels (H, W, 3)."""
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
    """Return why OpenCV refused an image, and what to do."""
    if error.code == cv2.Error.StsNoMem:
        return _TOO_LITTLE_MEMORY
    reason = str(error).strip().splitlines()[-1].split("error: ")[-1]
    if "validateInputImageSize" in reason:
        return f"too many pixels, expected at most {MAX_SIDE} a side; scale it down"
    return f"not readable as an image: {reason}"


@contextlib.contextmanager
def _captured_stderr(messages: list[str]) -> Iterator[None]:
    """Append to ``messages`` what OpenCV and the C libraries below it write to stderr, instead of showing it."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    try:
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError:  # no folder for temporary files can be written
        file = Path(os.devnull).open("r+b")  # noqa: SIM115
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        with file:
            file.seek(0)
            messages.append(file.read(_MAX_MESSAGE_BYTES).decode("utf-8", "replace"))
        cv2.utils.logging.setLogLevel(level)
