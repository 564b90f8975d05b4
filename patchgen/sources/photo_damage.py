"""Find damage that decoders do not report: JPEGs without their last scans, TIFF strips with a wrong checksum."""

import re
import struct
import zlib

from PIL import Image

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)  # skips fill bytes and restarts
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC5, 0xC9, 0xCD), (0xC2, 0xC6, 0xCA, 0xCE)
_SOS, _EOI = 0xDA, 0xD9
_COMPRESSION, _DEFLATE, _STRIPS, _TILES, _FILL_ORDER = 259, (8, 32946), (273, 279), (324, 325), 266
_BLOCK = 1 << 16


def jpeg_damage(data: bytes) -> str | None:
    """Return what a JPEG's main picture lacks: its end, or scans of channels or finer detail.

    Decoders report neither (ITU-T T.81, annexes B and G).
    """
    components, progressive = b"", False
    missing_bits: dict[tuple[int, int], int] = {}
    at, marker = 2, 0
    while True:
        match = _MARKER.search(data, at)
        if match is None:
            return "the JPEG has no end"
        marker, at = match[1][0], match.end()
        if marker == _EOI:
            break
        length = struct.unpack(">H", data[at : at + 2])[0]
        segment = data[at + 2 : at + length]
        if marker in (*_SEQUENTIAL, *_PROGRESSIVE):
            components, progressive = segment[6::3][: segment[5]], marker in _PROGRESSIVE
        elif marker == _SOS:
            first, last, bits = segment[-3:] if progressive else (0, 63, 0)
            for component in segment[1 : 1 + 2 * segment[0] : 2]:
                missing_bits.update({(component, k): bits & 15 for k in range(first, min(last, 63) + 1)})
        at += length
    if any(missing_bits.get((component, k), 1) for component in components for k in range(64)):
        return "the JPEG lacks its last scans"
    return None


def tiff_damage(image: Image.Image, data: bytes) -> str | None:
    """Return whether the checksum of a deflated strip or tile is wrong, which libtiff does not check."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) not in _DEFLATE or tags.get(_FILL_ORDER, 1) != 1:
        return None
    starts, sizes = next(((tags[a], tags[b]) for a, b in (_STRIPS, _TILES) if a in tags and b in tags), ((), ()))
    view = memoryview(data)
    for start, size in zip(starts, sizes, strict=True):
        stream = zlib.decompressobj()
        try:
            for at in range(start, start + size, _BLOCK):
                rest: bytes | memoryview = view[at : min(at + _BLOCK, start + size)]
                while rest and not stream.eof:
                    stream.decompress(rest, 16 * _BLOCK)
                    rest = stream.unconsumed_tail
        except zlib.error:
            return "TIFF: a strip of pixels does not inflate to its checksum"
    return None
