"""Read what an encoded image declares from its first bytes, before a decoder runs.

Sources: PNG (W3C, 2003), sections 5.3 and 11.2.2; WebP lossless bitstream (RFC 9649), section 3.4; PPM (netpbm,
``ppm(5)``).
"""

import re
import struct
from collections.abc import Callable, Iterator

from manifests.errors import PatchSetError
from manifests.untrusted.jpeg import read_jpeg

_PPM = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+(\d{1,5})\s")


def declared_size(data: bytes, image_format: str, where: str) -> tuple[int, int]:
    """Return width and height in pixels that a patch declares; ``image_format`` is the manifest's."""
    try:
        return _READERS[image_format](data)
    except (ValueError, struct.error, IndexError) as error:
        reason = str(error) if type(error) is ValueError else "its header is cut off"
        raise PatchSetError(f"{where}: not a whole image: no {image_format} as a set holds it: {reason}") from error


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk of a PNG, and where its content starts and ends; the last may be cut off."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


def _png(data: bytes) -> tuple[int, int]:
    if data[:16] != b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR":
        raise ValueError("it does not begin as one")
    width, height, depth, color_type = struct.unpack(">IIBB", data[16:26])
    if (depth, color_type) != (8, 2):
        raise ValueError(f"{depth} bits of color type {color_type}, expected 8 bits of type 2, RGB")
    return width, height


def _jpg(data: bytes) -> tuple[int, int]:
    jpeg = read_jpeg(data)
    return jpeg.width, jpeg.height


def _webp(data: bytes) -> tuple[int, int]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("it does not begin as one")
    if data[12:16] != b"VP8L" or data[20:21] != b"\x2f":
        raise ValueError("it is not one lossless picture")
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
