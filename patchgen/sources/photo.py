"""Read a photo as RGB uint8 pixels."""

import contextlib
import dataclasses
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.errors import unreadable
from manifests.format.digest import pixel_digest
from manifests.support.console import note
from manifests.support.counts import counted
from manifests.support.files import read_regular_file
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SIDE
from patchgen.pixels.exact_math import Pixels
from patchgen.sources.photo_checks import Finding, damage, header_findings

MAX_FILE_BYTES = 2 << 30
_MAX_MESSAGE_BYTES = 1 << 16
# libjpeg and libtiff invent pixels that they cannot read, and report this only on stderr.
_DECODER_MESSAGE = re.compile(r"(Corrupt JPEG data: .*|Premature end of JPEG.*)|TIFF_Error (.*)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
    """A decoded photo."""

    path: Path
    pixels: Pixels  # RGB uint8 (height, width, 3)
    sha256: str  # of the file, as hex
    pixels_sha256: str  # pixel digest, as hex
    findings: tuple[Finding, ...] = ()  # differences between the pixels and those that a viewer shows

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def read_photos(paths: Iterable[Path]) -> list[Photo]:
    """Read photos. Print a note on stderr if the pixels of a photo differ from those that a viewer shows."""
    photos = [read_photo(path) for path in paths]
    for line in finding_lines(photos):
        note(line)
    return photos


def finding_lines(photos: Iterable[Photo]) -> list[str]:
    """Return a line for each difference between the pixels of a photo and those that a viewer shows."""
    return list(dict.fromkeys(f"{photo.path}: {found.text}" for photo in photos for found in photo.findings))


def read_photo(path: Path) -> Photo:
    """Read a JPEG, PNG, WebP, TIFF, BMP or PPM file of at most 32,766 pixels a side.

    EXIF orientation is applied. Gray and CMYK become RGB. An alpha channel is dropped. Channels of 16 bits are scaled
    to 8 bits with exact rounding. Color profiles are ignored.
    """
    try:
        data = read_regular_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise PatchgenError(str(unreadable(path, "the photo", error, "give the path of an image"))) from error
    try:
        pixels, messages = _decode(data)
    except PatchgenError as error:
        raise PatchgenError(f"{path}: {error}") from error
    except (cv2.error, MemoryError) as error:
        reason = (str(error).strip().splitlines() or ["too little memory"])[-1].split("error: ")[-1]
        what = f"the image cannot be decoded ({reason}), expected at most {MAX_SIDE} pixels a side"
        raise PatchgenError(f"{path}: {what}; scale the photo down, or save it as PNG") from error
    findings = header_findings(data, decode=True)
    if match := _DECODER_MESSAGE.search(messages):
        reported = damage((match[1] or f"TIFF: {match[2]}").strip()[:200])
        findings = [reported, *(finding for finding in findings if finding.kind != "damage")]
    digests = {"sha256": hashlib.sha256(data).hexdigest(), "pixels_sha256": pixel_digest(pixels).hex()}
    return Photo(path=path, pixels=pixels, findings=tuple(findings), **digests)


def _decode(data: bytes) -> tuple[Pixels, str]:
    """Return RGB uint8 pixels (H, W, 3), and the text that the decoder wrote to stderr."""
    if not data:
        raise PatchgenError("the file is empty, expected an image; download the file again")
    messages: list[str] = []
    with _captured_stderr(messages):
        # IMREAD_COLOR_RGB would leave 16-bit color TIFFs undefined (OpenCV 4.14).
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if decoded is None:
        raise PatchgenError(
            f"the file ({counted(len(data), 'byte')}) is not a whole image, expected JPEG, PNG, WebP, TIFF, BMP "
            "or PPM; download the file again, or open it in a viewer and save it as PNG"
        )
    return _eight_bits(decoded), "".join(messages)


def _eight_bits(decoded: Any) -> Pixels:
    """Convert BGR pixels of 8 or 16 bits to RGB uint8 pixels (H, W, 3)."""
    if max(decoded.shape) > MAX_SIDE:
        height, width = decoded.shape[:2]
        what = f"the photo has {width}×{height} pixels, expected at most {MAX_SIDE} a side"
        raise PatchgenError(f"{what}; scale the photo down")
    decoded = np.ascontiguousarray(decoded[..., ::-1])
    if decoded.dtype == np.uint16:
        decoded = ((decoded.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if decoded.dtype != np.uint8:
        raise PatchgenError(f"pixels are {decoded.dtype}, expected 8 or 16 bits a channel; convert the photo to PNG")
    return decoded


@contextlib.contextmanager
def _captured_stderr(messages: list[str]) -> Iterator[None]:
    """Append to ``messages`` the text that OpenCV and its C libraries write to stderr in the ``with`` block."""
    with contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
            stack.callback(os.close, saved)
            file = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # stderr is closed, or the program cannot write temporary files
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
