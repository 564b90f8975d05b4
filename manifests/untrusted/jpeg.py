"""Read what a JPEG declares, and find out whether it holds all its pixels.

A decoder that reaches a marker before it has all pixels invents the others, each decoder in its own way, and
libjpeg's warning does not reach Python. One that runs out of bytes without a marker fails.

Source: ITU-T T.81, annexes B and F.
"""

import dataclasses
import functools
import re
import struct

from manifests.support.counts import counted

MAX_SCANS = 100
"""Scans of a progressive JPEG. Each is a pass over all pixels, and encoders write about ten."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SOI, _EOI, _SOS = b"\xff\xd8", 0xD9, 0xDA
_PROGRESSIVE = 0xC2
_FRAMES = frozenset({0xC0, 0xC1, _PROGRESSIVE})  # markers of Huffman-coded frames, which all decoders read
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
_RESTARTS = range(0xD0, 0xD8)
_ONES = b"\xff\x00" * 8
"""64 one bits, more than libjpeg reads ahead. No code is all ones, and a block of 8 × 8 would take 34 of them."""
_NOISE = bytes((181 + 37 * number) % 251 for number in range(16))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jpeg:
    """Width and height in pixels, where each run of coded pixels ends, and whether there is one run in one scan."""

    width: int
    height: int
    plain: bool
    ends: tuple[int, ...]


@functools.lru_cache(maxsize=1)  # called for its size, and then for its pixels
def read_jpeg(data: bytes) -> Jpeg:
    """Read a JPEG of three channels of 8 bits, marker by marker."""
    if data[:2] != _SOI:
        raise ValueError("it does not begin as one")
    if (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ValueError(f"{scans} scans, expected at most {MAX_SCANS}")
    frames: list[tuple[int, int, int]] = []
    ends: list[int] = []
    at, marker = 2, 0
    while marker != _EOI:
        match = _MARKER.match(data, at)
        if match is None:
            raise ValueError(f"no marker at byte {at}")
        marker, at = data[match.end() - 1], match.end()
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            frames.append(_frame(marker, data, at))
        if marker not in _RESTARTS and marker != _EOI:
            length = struct.unpack(">H", data[at : at + 2])[0]
            if length < 2:
                raise ValueError(f"a segment of {counted(length, 'byte')} at byte {at}")
            at += length
        if marker == _SOS or marker in _RESTARTS:
            following = _MARKER.search(data, at)
            if following is None:
                raise ValueError("its pixels have no end")
            at = following.start()
            ends.append(at)
    if at != len(data):
        raise ValueError(f"{counted(len(data) - at, 'byte')} after its end")
    if len(frames) != 1 or not ends:
        raise ValueError("no frame before its pixels, or several")
    marker, width, height = frames[0]
    plain = marker != _PROGRESSIVE and len(ends) == 1
    return Jpeg(width=width, height=height, plain=plain, ends=tuple(ends))


def _frame(marker: int, data: bytes, at: int) -> tuple[int, int, int]:
    if marker not in _FRAMES:
        raise ValueError(f"a frame of kind {marker - 0xC0}, expected baseline, extended or progressive")
    bits, height, width, channels = struct.unpack(">BHHB", data[at + 2 : at + 8])
    if (bits, channels) != (8, 3):
        raise ValueError(f"{counted(channels, 'channel')} of {bits} bits, expected 3 of 8")
    return marker, width, height


def variants(data: bytes) -> tuple[bytes, ...]:
    """Return changed copies of a JPEG that decode to equal pixels only if it holds all of its pixels.

    Of a plain JPEG, the only copy has one bits in place of its end: a decoder that needs more pixels fails there.
    Decoders of other JPEGs read all bytes first. These are returned unchanged, and with noise after every run of
    coded pixels: a decoder ignores the noise where the run is whole, and else decodes it as the missing pixels.
    """
    jpeg = read_jpeg(data)
    if jpeg.plain:
        return (data[: jpeg.ends[0]] + _ONES,)
    parts = [data[start:end] for start, end in zip((0, *jpeg.ends), (*jpeg.ends, len(data)), strict=True)]
    return data, _NOISE.join(parts)
