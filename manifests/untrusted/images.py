"""Decode the patches of a set, and find images that ``pack`` may copy into a set without encoding them again.

When a JPEG lacks pixels, decoders invent different pixels, and Pillow reports no error. Functions here detect this.
"""

import re
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from manifests.errors import PatchSetError, corrupt
from manifests.limits import IMAGE_FORMATS, max_patch_bytes
from manifests.support.counts import counted
from manifests.untrusted.decode import REPLACE, image_formats, open_image, orientation

_PILLOW: dict[str, str] = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "ppm": "PPM"}  # Pillow's names of the formats
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of each pass of an interlaced PNG (PNG specification, section 8.2)."""
_IS_PLAIN: dict[str, Callable[[bytes], bool]] = {
    "png": lambda data: data[:16] == b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" and data[24:26] == b"\x08\x02",
    "jpg": lambda data: data[-2:] == b"\xff\xd9",
    "webp": lambda data: data[12:16] == b"VP8L",
    "ppm": lambda data: data[:2] == b"P6" and data.split(maxsplit=4)[3:4] == [b"255"],
}
"""For each format, a test whether an image that Pillow opens as RGB has 8 bits a channel and one whole picture."""
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SOI, _EOI, _SOS = b"\xff\xd8", 0xD9, 0xDA
_PROGRESSIVE = 0xC2
_FRAMES = frozenset({0xC0, 0xC1, _PROGRESSIVE})  # markers of Huffman-coded frames; all decoders read these
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
_RESTARTS = range(0xD0, 0xD8)
_ONES = b"\xff\x00" * 8
"""64 one bits. libjpeg reads fewer bits ahead, and no code consists of ones."""
_NOISE = bytes((181 + 37 * number) % 251 for number in range(16))


def decode_patch(data: bytes, where: str, size: int, image_format: str) -> npt.NDArray[np.uint8]:
    """Return the RGB uint8 pixels (size, size, 3) of a patch. ``where`` is the name of the patch in errors."""
    if len(data) > max_patch_bytes(size):
        raise corrupt(where, f"the image has {len(data)} bytes, expected at most {max_patch_bytes(size)}")
    if image_format != "jpg":
        return _pixels(data, where, size, image_format)
    try:
        copies = variants(data)
    except ValueError as error:
        raise corrupt(where, f"the data is not a whole image: not a valid JPEG: {error}") from error
    pixels, *others = (_pixels(copy, where, size, "jpg") for copy in copies)
    if not all(np.array_equal(pixels, other) for other in others):
        raise corrupt(where, "the data is not a whole image: the JPEG lacks a part of its pixels")
    return pixels


def _pixels(data: bytes, where: str, size: int, image_format: str) -> npt.NDArray[np.uint8]:
    # Pillow reads only the header until ``np.asarray``, which allocates memory for the declared size.
    with open_image(data, where, (_PILLOW[image_format],)) as image:
        if image.size != (size, size):
            raise corrupt(where, f"the image is {image.width}×{image.height}, expected {size}×{size} pixels")
        if image.mode != "RGB" or (count := getattr(image, "n_frames", 1)) != 1:
            found = f"is in color mode {image.mode}" if image.mode != "RGB" else f"has {counted(count, 'picture')}"
            raise corrupt(where, f"the data is not a whole image: it {found}, expected one picture in RGB")
        if image_format != "jpg" and not _IS_PLAIN[image_format](data):
            found = "lossy, expected lossless WebP" if image_format == "webp" else "not in 8 bits for each channel"
            raise corrupt(where, f"the data is not a whole image: it is {found}")
        if image_format == "png" and not _has_all_rows(data, size):
            raise corrupt(where, f"the data is not a whole image: the PNG does not have {size} rows of pixels")
        return np.asarray(image)


def size_and_storable_format(data: bytes, where: str) -> tuple[tuple[int, int], str | None]:
    """Return the size of a decoded image, and its format. The format is None if no set may contain this file.

    The size is (width, height) in pixels. A set may contain a PNG, PPM, JPEG or lossless WebP with one picture in
    8-bit RGB, without transparency or EXIF orientation. A JPEG must end with its end marker. No pixels are decoded.
    """
    with open_image(data, where, image_formats()) as image:
        if image.format == "PNG" and not _is_whole_png(data):
            raise PatchSetError(f"{where}: the data is not a whole image: the PNG is damaged; {REPLACE}")
        turned = orientation(image)
        size = image.size[::-1] if turned >= 5 and image.format != "TIFF" else image.size  # Pillow turns TIFF itself
        found = next((key for key in IMAGE_FORMATS if _PILLOW[key] == image.format), None)
        # Pillow counts the pictures of a TIFF slowly, so the format is compared first.
        plain = found and image.mode == "RGB" and getattr(image, "n_frames", 1) == 1 and turned == 1
        bare = found != "png" or not (b"tRNS" in data or b"eXIf" in data)
        return size, found if plain and bare and found and _IS_PLAIN[found](data) else None


def _has_all_rows(data: bytes, size: int) -> bool:
    """Return whether an RGB PNG of ``size`` × ``size`` pixels has all rows. Decoders would invent missing rows."""
    packed = b"".join(data[start:end] for kind, start, end in png_chunks(data) if kind == b"IDAT")
    passes = _ADAM7 if data[28:29] == b"\1" else ((0, 0, 1, 1),)
    sides = ((-(-(size - x) // dx), -(-(size - y) // dy)) for x, y, dx, dy in passes)
    expected = sum(rows * (1 + 3 * columns) for columns, rows in sides if columns)
    try:
        return len(zlib.decompressobj().decompress(packed, expected + 1)) == expected
    except zlib.error:
        return False


def _is_whole_png(data: bytes) -> bool:
    """Return whether all chunks of a PNG up to IEND are present and have the right checksum."""
    for kind, start, end in png_chunks(data):
        is_good = zlib.crc32(data[start - 4 : end]).to_bytes(4, "big") == data[end : end + 4]
        if kind == b"IEND" or not is_good:
            return is_good
    return False


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk of a PNG, and the start and end of its content. The last chunk may be cut off."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


def read_runs(data: bytes) -> tuple[bool, list[int]]:
    """Return whether a JPEG is progressive, and the byte offset at which each run ends.

    A run is a sequence of coded pixels between two markers. Raise ValueError if it is damaged or not Huffman-coded.
    """
    if data[:2] != _SOI:
        raise ValueError("its first bytes are not those of a JPEG")
    frames: list[int] = []
    ends: list[int] = []
    at, marker = 2, 0
    while marker != _EOI:
        match = _MARKER.match(data, at)
        if match is None:
            raise ValueError(f"the data at byte {at} is corrupt")
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
                raise ValueError("it is probably cut off, because its pixels have no end marker")
            at = following.start()
            ends.append(at)
    if at != len(data):
        raise ValueError(f"it has {counted(len(data) - at, 'byte')} after its end marker")
    if len(frames) != 1 or not ends:
        raise ValueError(f"it has {counted(len(frames), 'frame')} and {len(ends)} runs, expected 1 and at least 1")
    return frames[0] == _PROGRESSIVE, ends


def variants(data: bytes) -> tuple[bytes, ...]:
    """Return one or two JPEGs to decode. If a decoder reports an error or the pixels differ, ``data`` lacks pixels.

    If ``data`` is not progressive and has one run, return a copy with 1 bits in place of the end marker. A decoder
    that needs more pixels fails at these bits. Otherwise return ``data`` and a copy with noise after each run. A
    decoder ignores noise after a complete run, but decodes noise after an incomplete run.
    """
    is_progressive, ends = read_runs(data)
    if len(ends) == 1 and not is_progressive:
        return (data[: ends[0]] + _ONES,)
    parts = [data[start:end] for start, end in zip((0, *ends), (*ends, len(data)), strict=True)]
    return data, _NOISE.join(parts)
