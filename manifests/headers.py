"""What an encoded image says of itself, read from its first bytes before any decoder sees it.

Sources: PNG (W3C, 2003), section 11.2.2; JPEG (ITU-T T.81), annex B; WebP lossless bitstream (RFC 9649), section 3.4;
PPM (netpbm, ``ppm(5)``).
"""

import re
import struct
from collections.abc import Callable

from manifests.errors import PatchSetError

MAX_SCANS = 100
"""Of a progressive JPEG. Each is a pass over all its pixels, and encoders write about ten."""

_PPM = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+(\d{1,5})\s")
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
"""Markers among those of frames that begin none: tables, and one that is reserved."""


def declared_size(data: bytes, image_format: str, where: str) -> tuple[int, int]:
    """Width and height in pixels that an image of a set declares; ``image_format`` is the manifest's.

    Raises:
        PatchSetError: it is of another format, damaged at its beginning, or not in RGB of 8 bits a channel, lossless
            if it is WebP; or it is a JPEG of hundreds of scans.
    """
    try:
        return _READERS[image_format](data)
    except (ValueError, struct.error, IndexError) as error:
        reason = str(error) if type(error) is ValueError else "its header is cut off"
        raise PatchSetError(f"{where}: not a whole image: no {image_format} as a set holds it: {reason}") from error


def _png(data: bytes) -> tuple[int, int]:
    if data[:16] != b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR":
        raise ValueError("it does not begin as one")
    width, height, depth, colours = struct.unpack(">IIBB", data[16:26])
    if (depth, colours) != (8, 2):
        raise ValueError(f"{depth} bits of colour type {colours}, expected 8 of type 2, RGB")
    return width, height


def _jpg(data: bytes) -> tuple[int, int]:
    if data[:2] != b"\xff\xd8":
        raise ValueError("it does not begin as one")
    if (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ValueError(f"{scans} scans, expected at most {MAX_SCANS}")
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # a marker may be filled up
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            bits, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            if (bits, channels) != (8, 3):
                raise ValueError(f"{channels} channels of {bits} bits, expected 3 of 8")
            return width, height
        if marker in (0xD9, 0xDA):
            raise ValueError("no frame before its pixels")
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if length < 2:
            raise ValueError(f"a segment of {length} bytes at byte {at}")
        at += 2 + length


def _webp(data: bytes) -> tuple[int, int]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("it does not begin as one")
    if data[12:16] != b"VP8L" or data[20:21] != b"\x2f":
        raise ValueError("it is not of one lossless picture")
    bits = struct.unpack("<I", data[21:25])[0]
    if bits >> 29:
        raise ValueError("a later version of the format")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _ppm(data: bytes) -> tuple[int, int]:
    match = _PPM.match(data[:64])
    if match is None or int(match[3]) != 255:
        raise ValueError("it does not begin with P6, width, height and 255")
    return int(match[1]), int(match[2])


_READERS: dict[str, Callable[[bytes], tuple[int, int]]] = {"png": _png, "jpg": _jpg, "webp": _webp, "ppm": _ppm}
