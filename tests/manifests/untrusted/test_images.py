"""Test image headers: the sizes that files of all encoders declare, and images that a set must not contain."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from manifests.errors import PatchSetError
from manifests.untrusted.decode import MAX_SCANS, decode_image
from manifests.untrusted.images import decode_patch, read_runs, size_and_storable_format

FORMATS = {"png": ("PNG", {}), "jpg": ("JPEG", {}), "webp": ("WEBP", {"lossless": True}), "ppm": ("PPM", {})}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced PNG: first column, first row, and the steps to the next column and row."""


def encoded(image_format: str, width: int = 40, height: int = 24, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    name, always = FORMATS[image_format]
    noise = np.random.default_rng(width).normal(128, 90, (height, width)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).convert(mode).save(out, name, **{**always, **options})
    return out.getvalue()


@pytest.mark.parametrize("image_format", FORMATS)
def test_what_an_image_declares_is_what_it_is(image_format: str) -> None:
    with pytest.raises(PatchSetError, match="the image is 40×24, expected 24×24"):
        decode_patch(encoded(image_format), "x", 24, image_format)
    square = encoded(image_format, 24)
    assert decode_patch(square, "x", 24, image_format).shape == (24, 24, 3)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_header_that_is_cut_off_or_another_formats(image_format: str) -> None:
    whole = encoded(image_format, 24)
    for length in range(0, 12, 3):
        with pytest.raises(PatchSetError, match="not a whole image"):
            decode_patch(whole[:length], "x", 24, image_format)
    for other in FORMATS.keys() - {image_format}:
        with pytest.raises(PatchSetError, match=r"not a whole image: (it is not|it is in|it has|not a valid)"):
            decode_patch(whole, "x", 24, other)


JPEGS: list[dict[str, object]] = [
    {},
    {"progressive": True},
    {"optimize": True},
    {"exif": b"Exif\x00\x00" + bytes(99)},
    {"restart_marker_rows": 1},
    {"subsampling": 0, "quality": 100},
    {"subsampling": 1, "quality": 30},
]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("size", [8, 17, 32, 33, 64, 224])
def test_a_jpeg_holds_all_its_pixels(options: dict[str, object], size: int) -> None:
    data = encoded("jpg", size, size, **options)
    assert np.array_equal(decode_patch(data, "x", size, "jpg"), decode_image(data, "x"))
    _, ends = read_runs(data)
    start = data.index(b"\xff\xda") + 14
    for end in (ends[0], ends[-1]) if size > 8 else ends[:1]:  # the last scan of a small image may be empty
        start = max(start, data.rfind(b"\xff\xda", 0, end) + 10)
        for left in (0, (end - start) // 2) if size > 8 else (0,):
            with pytest.raises(PatchSetError, match="not a whole image"):
                decode_patch(data[: start + left] + data[end:], "x", size, "jpg")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data[:-2], "no end"),
        (lambda data: data + b"\0", "1 byte after its end"),
        (lambda data: data + data, "bytes after its end"),
        (lambda data: data[:-40] + b"\xff\xd0" + data[-40:], "lacks a part"),
        (lambda data: data.replace(b"\xff\xc0", b"\xff\xc9"), "frame is of kind 9"),
    ],
)
def test_a_jpeg_that_decoders_read_each_in_its_own_way(change: Callable[[bytes], bytes], part: str) -> None:
    with pytest.raises(PatchSetError, match=part):
        decode_patch(change(encoded("jpg", 32, 32)), "x", 32, "jpg")


def packed_png(rows: bytes, size: int, interlaced: int = 0) -> bytes:
    """Return a PNG (RGB, 8 bits) with these rows. Each row begins with the byte of its filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, interlaced)
    body = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", body[:20]), (b"IDAT", body[20:]), (b"IEND", b""))
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 32, 33])
def test_a_png_holds_as_many_rows_as_it_declares(size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in PASSES]
    plain, interlaced = (
        b"".join(b"\0" + row.tobytes() for part in parts if part.shape[1] for row in part)
        for parts in ([pixels], passes)
    )
    for rows, kind in ((plain, 0), (interlaced, 1)):
        assert np.array_equal(decode_patch(packed_png(rows, size, kind), "x", size, "png"), pixels)
        for wrong in (rows[:-1], rows + b"\0", b""):
            with pytest.raises(PatchSetError, match=f"does not have {size} rows"):
                decode_patch(packed_png(wrong, size, kind), "x", size, "png")


def png(width: int, height: int, depth: int = 8, colors: int = 2) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + bytes(4)
        + b"IDAT"
    )


@pytest.mark.parametrize(
    ("data", "image_format", "part"),
    [
        (png(100_000, 100_000), "png", "too large"),
        (png(32, 32, depth=16), "png", "8 bits"),
        (png(32, 32, colors=6), "png", "RGBA"),
        (encoded("jpg", 32, 32, "CMYK"), "jpg", "CMYK"),
        (encoded("jpg", 32, 32, "L"), "jpg", "color mode L"),
        (encoded("webp", 32, 32, lossless=False), "webp", "lossless"),
        (b"P6\n32 32\n65535\n" + bytes(6 * 32 * 32), "ppm", "8 bits for each"),
        (b"P6\n99999 99999\n255\n", "ppm", "too large"),
        (encoded("jpg", 32, 32) + b"\xff\xda" * MAX_SCANS, "jpg", "after its end"),
        (encoded("png", 32, 32) + bytes(2 << 20), "png", "expected at most"),
    ],
)
def test_what_no_set_holds(data: bytes, image_format: str, part: str) -> None:
    with pytest.raises(PatchSetError, match=part) as caught:
        decode_patch(data, "here", 32, image_format)
    assert str(caught.value).startswith("here: ") and "\n" not in str(caught.value)


def test_a_tiffs_pictures_are_not_counted() -> None:
    """The pictures of a TIFF are not counted. A count needs time that grows with the square of their number."""
    out = io.BytesIO()
    Image.new("RGB", (9, 7)).save(out, "TIFF")
    data = bytearray(out.getvalue())
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[end : end + 4] = first.to_bytes(4, "little")  # the second picture is the first again
    assert size_and_storable_format(bytes(data), "x") == ((9, 7), None)
    image = Image.open(io.BytesIO(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(image), "n_frames", property(lambda self: pytest.fail("counted")))
        size_and_storable_format(bytes(data), "x")
