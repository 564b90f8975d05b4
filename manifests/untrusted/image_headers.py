"""Find missing pixels of a JPEG, and list the chunks of a PNG.

When a JPEG lacks pixels, decoders invent them, each decoder in its own way. libjpeg's warning does not reach Python.
"""

import re
from collections.abc import Iterator

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


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk of a PNG, and the start and end of its content. The last chunk may be cut off."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


def read_runs(data: bytes) -> tuple[bool, list[int]]:
    """Return whether a JPEG is progressive, and the end in bytes of each run.

    A run is a sequence of coded pixels between two markers. Raise ValueError if the frame is not Huffman-coded.
    """
    if data[:2] != _SOI:
        raise ValueError("its first bytes are wrong")
    if (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ValueError(f"it has {scans} scans, expected at most {MAX_SCANS}")
    frames: list[int] = []
    ends: list[int] = []
    at, marker = 2, 0
    while marker != _EOI:
        match = _MARKER.match(data, at)
        if match is None:
            raise ValueError(f"byte {at} does not begin a marker")
        marker, at = data[match.end() - 1], match.end()
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            if marker not in _FRAMES:
                raise ValueError(f"its frame is of kind {marker - 0xC0}, expected baseline, extended or progressive")
            frames.append(marker)
        if marker not in _RESTARTS and marker != _EOI:
            length = int.from_bytes(data[at : at + 2], "big")
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
    return frames[0] == _PROGRESSIVE, ends


def variants(data: bytes) -> tuple[bytes, ...]:
    """Return changed copies of a JPEG. They decode to equal pixels only if the JPEG has all its pixels.

    In the only copy of a plain JPEG, one bits replace the end marker. A decoder that needs more pixels fails there.
    Other JPEGs are returned unchanged, and as a copy with noise after each run. A decoder ignores the noise after a
    whole run, and decodes the noise as the missing pixels of an incomplete run. A JPEG is plain if it is not
    progressive and has one run.
    """
    is_progressive, ends = read_runs(data)
    if len(ends) == 1 and not is_progressive:
        return (data[: ends[0]] + _ONES,)
    parts = [data[start:end] for start, end in zip((0, *ends), (*ends, len(data)), strict=True)]
    return data, _NOISE.join(parts)
