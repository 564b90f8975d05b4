"""Read the size that an encoded image declares before a decoder runs, and find missing pixels of a JPEG.

When a JPEG lacks pixels, decoders invent them, each decoder in its own way. libjpeg's warning does not reach Python.

Sources: PNG (W3C, 2003), sections 5.3 and 11.2.2; WebP lossless bitstream (RFC 9649), section 3.4; PPM (netpbm,
``ppm(5)``).
"""

import dataclasses
import functools
import re
import struct
from collections.abc import Callable, Iterator

from manifests.errors import corrupt
from manifests.support.counts import counted

MAX_SCANS = 100
"""Maximum number of scans of a progressive JPEG. A scan is a pass over all pixels; encoders write about ten scans."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SOI, _EOI, _SOS = b"\xff\xd8", 0xD9, 0xDA
_PROGRESSIVE = 0xC2
_FRAMES = frozenset({0xC0, 0xC1, _PROGRESSIVE})  # markers of Huffman-coded frames; all decoders read these
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
_RESTARTS = range(0xD0, 0xD8)
_ONES = b"\xff\x00" * 8
"""64 one bits. libjpeg reads fewer bits ahead, and no code consists of ones."""
_NOISE = bytes((181 + 37 * number) % 251 for number in range(16))
_PPM = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+(\d{1,5})\s")


def declared_size(data: bytes, image_format: str, where: str) -> tuple[int, int]:
    """Return the width and height in pixels that a patch declares. ``image_format`` is the format in the manifest."""
    try:
        return _READERS[image_format](data)
    except (ValueError, struct.error, IndexError) as error:
        reason = str(error) if type(error) is ValueError else "its header is cut off"
        raise corrupt(where, f"not a whole image: not a valid {image_format} of a patch set: {reason}") from error


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk of a PNG, and the start and end of its content. The last chunk may be cut off."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


def _png(data: bytes) -> tuple[int, int]:
    if data[:16] != b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR":
        raise ValueError("its first bytes are wrong")
    width, height, depth, color_type = struct.unpack(">IIBB", data[16:26])
    if (depth, color_type) != (8, 2):
        raise ValueError(f"it has {depth} bits and color type {color_type}, expected 8 bits and type 2 (RGB)")
    return width, height


def _jpg(data: bytes) -> tuple[int, int]:
    jpeg = read_jpeg(data)
    return jpeg.width, jpeg.height


def _webp(data: bytes) -> tuple[int, int]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("its first bytes are wrong")
    if data[12:16] != b"VP8L" or data[20:21] != b"\x2f":
        raise ValueError("it is not a single lossless picture")
    bits = struct.unpack("<I", data[21:25])[0]
    if bits >> 29:
        raise ValueError("it uses a later version of the format")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _ppm(data: bytes) -> tuple[int, int]:
    match = _PPM.match(data[:64])
    if match is None or int(match[3]) != 255:
        raise ValueError("it does not begin with P6, width, height and 255")
    return int(match[1]), int(match[2])


_READERS: dict[str, Callable[[bytes], tuple[int, int]]] = {"png": _png, "jpg": _jpg, "webp": _webp, "ppm": _ppm}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jpeg:
    """The markers of a JPEG. A run is a sequence of coded pixels between two markers."""

    width: int  # pixels
    height: int  # pixels
    plain: bool  # whether the JPEG is not progressive and has one run
    ends: tuple[int, ...]  # position of the end of each run in bytes


@functools.lru_cache(maxsize=1)  # called for the size, and again for the pixels
def read_jpeg(data: bytes) -> Jpeg:
    """Read the markers of a JPEG. Refuse a JPEG that does not have three channels of 8 bits."""
    if data[:2] != _SOI:
        raise ValueError("its first bytes are wrong")
    if (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ValueError(f"it has {scans} scans, expected at most {MAX_SCANS}")
    frames: list[tuple[int, int, int]] = []
    ends: list[int] = []
    at, marker = 2, 0
    while marker != _EOI:
        match = _MARKER.match(data, at)
        if match is None:
            raise ValueError(f"byte {at} does not begin a marker")
        marker, at = data[match.end() - 1], match.end()
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            frames.append(_frame(marker, data, at))
        if marker not in _RESTARTS and marker != _EOI:
            length = struct.unpack(">H", data[at : at + 2])[0]
            if length < 2:
                raise ValueError(f"the segment at byte {at} has {counted(length, 'byte')}, expected at least 2")
            at += length
        if marker == _SOS or marker in _RESTARTS:
            following = _MARKER.search(data, at)
            if following is None:
                raise ValueError("its pixels have no end marker")
            at = following.start()
            ends.append(at)
    if at != len(data):
        raise ValueError(f"it has {counted(len(data) - at, 'byte')} after its end marker")
    if len(frames) != 1 or not ends:
        raise ValueError("it does not have exactly one frame")
    marker, width, height = frames[0]
    plain = marker != _PROGRESSIVE and len(ends) == 1
    return Jpeg(width=width, height=height, plain=plain, ends=tuple(ends))


def _frame(marker: int, data: bytes, at: int) -> tuple[int, int, int]:
    if marker not in _FRAMES:
        raise ValueError(f"its frame is of kind {marker - 0xC0}, expected baseline, extended or progressive")
    bits, height, width, channels = struct.unpack(">BHHB", data[at + 2 : at + 8])
    if (bits, channels) != (8, 3):
        raise ValueError(f"it has {counted(channels, 'channel')} of {bits} bits, expected 3 channels of 8 bits")
    return marker, width, height


def variants(data: bytes) -> tuple[bytes, ...]:
    """Return changed copies of a JPEG. They decode to equal pixels only if the JPEG has all its pixels.

    In the only copy of a plain JPEG, one bits replace the end marker. A decoder that needs more pixels fails there.
    Other JPEGs are returned unchanged, and as a copy with noise after each run. A decoder ignores the noise after a
    whole run, and decodes the noise as the missing pixels of an incomplete run.
    """
    jpeg = read_jpeg(data)
    if jpeg.plain:
        return (data[: jpeg.ends[0]] + _ONES,)
    parts = [data[start:end] for start, end in zip((0, *jpeg.ends), (*jpeg.ends, len(data)), strict=True)]
    return data, _NOISE.join(parts)
