"""JPEG: what one declares, and how to find out whether it holds all its pixels.

A decoder that comes upon a marker before it has all pixels fills in the others, each decoder in its own way, and
libjpeg's warning of it is heard by nobody. One that runs out of bytes with no marker in sight gives up.

Source: ITU-T T.81, annexes B and F.
"""

import dataclasses
import functools
import re
import struct

from manifests.support.counts import counted

MAX_SCANS = 100
"""Of a progressive JPEG. Each is a pass over all its pixels, and encoders write about ten."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SOI, _EOI, _SOS = b"\xff\xd8", 0xD9, 0xDA
_PROGRESSIVE = 0xC2
_FRAMES = frozenset({0xC0, 0xC1, _PROGRESSIVE})
"""Markers of frames in Huffman's code, which all decoders read."""
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
_RESTARTS = range(0xD0, 0xD8)
_ONES = b"\xff\x00" * 8
"""64 bits, more than libjpeg reads ahead. No code is all ones, and it takes 34 of them for a block of 8 × 8."""
_NOISE = bytes((181 + 37 * number) % 251 for number in range(16))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jpeg:
    """Width and height in pixels, whether its pixels come in one run of bytes, and where such runs end."""

    width: int
    height: int
    plain: bool
    ends: tuple[int, ...]


@functools.lru_cache(maxsize=1)  # for its size, and then for its pixels
def read_jpeg(data: bytes) -> Jpeg:
    """What a JPEG in three channels of 8 bits says of itself, marker by marker.

    Raises:
        ValueError, struct.error, IndexError: it is none, has several frames, none, or one that few decoders read;
            hundreds of scans; or no end, or bytes behind it.
    """
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
            at += _length(data, at)
        if marker == _SOS or marker in _RESTARTS:
            at = _end_of_run(data, at)
            ends.append(at)
    if at != len(data):
        raise ValueError(f"{counted(len(data) - at, 'byte')} behind its end")
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


def _length(data: bytes, at: int) -> int:
    length: int = struct.unpack(">H", data[at : at + 2])[0]
    if length < 2:
        raise ValueError(f"a segment of {counted(length, 'byte')} at byte {at}")
    return length


def _end_of_run(data: bytes, at: int) -> int:
    match = _MARKER.search(data, at)
    if match is None:
        raise ValueError("its pixels have no end")
    return match.start()


def variants(data: bytes) -> tuple[bytes, ...]:
    """Changed copies of what ``read_jpeg`` takes, all of which decode, and to the same pixels, where it has all.

    Of a plain one, that is the JPEG with a few ones in place of its end: a decoder that has all pixels stops there.
    Of others, a decoder reads all bytes before it begins. There noise goes behind every run of them: it is left out
    where the run is whole, and else taken for what is missing.
    """
    jpeg = read_jpeg(data)
    if jpeg.plain:
        return (data[: jpeg.ends[0]] + _ONES,)
    parts = [data[start:end] for start, end in zip((0, *jpeg.ends), (*jpeg.ends, len(data)), strict=True)]
    return data, _NOISE.join(parts)
