"""Read a photo file into RGB uint8 pixels as a viewer would show it."""

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def read_photos(paths: Iterable[Path]) -> list[Photo]:
    """Read photos, and print a line to stderr for each difference between their pixels and what a viewer shows."""
    photos = [read_photo(path) for path in paths]
    for line in dict.fromkeys(f"{photo.path}: {found.text}" for photo in photos for found in photo.findings):
        note(line)
    return photos


def read_photo(path: Path) -> Photo:
    """Read a JPEG, PNG, WebP, TIFF, BMP or PPM file of at most 32,766 pixels a side.

    EXIF orientation is applied, grayscale becomes RGB, CMYK is converted, an alpha channel is dropped, and
    16 bits a channel are scaled to 8 with exact rounding. Color profiles are ignored.
    """
    try:
        data = read_regular_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise PatchgenError(f"{path}: cannot be read: {error.strerror}; give the path of an image") from error
    try:
        pixels, messages = _decode(data)
    except PatchgenError as error:
        raise PatchgenError(f"{path}: {error}") from error
    except (cv2.error, MemoryError) as error:
        reason = (str(error).strip().splitlines() or ["too little memory"])[-1].split("error: ")[-1]
        raise PatchgenError(
            f"{path}: not readable as an image: {reason}; expected at most {MAX_SIDE} pixels a side"
        ) from error
    findings = header_findings(data, decode=True)
    if (damage := decoder_damage(messages)) is not None:
        findings = [damage, *(finding for finding in findings if finding.kind != "damage")]
    digests = {"sha256": hashlib.sha256(data).hexdigest(), "pixels_sha256": pixel_digest(pixels).hex()}
    return Photo(path=path, pixels=pixels, findings=tuple(findings), **digests)


def _decode(data: bytes) -> tuple[npt.NDArray[np.uint8], str]:
    """Return RGB uint8 pixels (H, W, 3), and what decoders wrote to stderr meanwhile."""
    if not data:
        raise PatchgenError("the file is empty, expected an image")
    messages: list[str] = []
    with _captured_stderr(messages):
        # IMREAD_COLOR_RGB would leave 16-bit color TIFFs undefined (OpenCV 4.14).
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if decoded is None:
        raise PatchgenError(
            f"not a whole image ({counted(len(data), 'byte')}): expected a complete JPEG, PNG, WebP, TIFF, BMP or "
            "PPM file; open it in a viewer and save it again"
        )
    return _eight_bits(decoded), "".join(messages)


def _eight_bits(decoded: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Convert BGR pixels of 8 or 16 bits to RGB uint8 pixels (H, W, 3)."""
    if max(decoded.shape) > MAX_SIDE:
        height, width = decoded.shape[:2]
        raise PatchgenError(f"{width}×{height} pixels, at most {MAX_SIDE} a side; scale it down")
    decoded = np.ascontiguousarray(decoded[..., ::-1])
    if decoded.dtype == np.uint16:
        return ((decoded.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if decoded.dtype != np.uint8:
        raise PatchgenError(f"pixels are {decoded.dtype}, expected 8 or 16 bits a channel; convert it to PNG")
    return decoded


@contextlib.contextmanager
def _captured_stderr(messages: list[str]) -> Iterator[None]:
    """Append to ``messages`` what OpenCV and the C libraries below it write to stderr, instead of showing it."""
    with contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
            stack.callback(os.close, saved)
            file = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # stderr is closed, or no folder for temporary files can be written
            yield
            return
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            cv2.utils.logging.setLogLevel(level)
            file.seek(0)
            messages.append(file.read(_MAX_MESSAGE_BYTES).decode("utf-8", "replace"))
