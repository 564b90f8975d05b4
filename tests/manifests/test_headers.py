"""Image headers: what every encoder's files declare, and what no set holds."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from manifests.errors import PatchSetError
from manifests.headers import MAX_SCANS, declared_size
from manifests.images import check_patch, decode_patch

FORMATS = {"png": ("PNG", {}), "jpg": ("JPEG", {}), "webp": ("WEBP", {"lossless": True}), "ppm": ("PPM", {})}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, and steps to the next."""


def encoded(image_format: str, width: int = 40, height: int = 24, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    name, always = FORMATS[image_format]
    Image.effect_noise((width, height), 90).convert(mode).save(out, name, **{**always, **options})
    return out.getvalue()


@pytest.mark.parametrize("image_format", FORMATS)
def test_what_an_image_declares_is_what_it_is(image_format: str) -> None:
    assert declared_size(encoded(image_format), image_format, "x") == (40, 24)
    square = encoded(image_format, 24)
    check_patch(square, "x", 24, image_format)
    assert decode_patch(square, "x", 24, image_format).shape == (24, 24, 3)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_header_that_is_cut_off_or_another_formats(image_format: str) -> None:
    whole = encoded(image_format)
    for length in range(0, 12, 3):
        with pytest.raises(PatchSetError, match="not a whole image"):
            declared_size(whole[:length], image_format, "x")
    for other in FORMATS.keys() - {image_format}:
        with pytest.raises(PatchSetError, match=f"no {other} as a set holds it"):
            declared_size(whole, other, "x")


@pytest.mark.parametrize(
    ("options"), [{"progressive": True}, {"optimize": True}, {"exif": b"Exif\x00\x00" + bytes(99)}]
)
def test_jpeg_of_every_kind(options: dict[str, object]) -> None:
    assert declared_size(encoded("jpg", **options), "jpg", "x") == (40, 24)


def packed_png(rows: bytes, size: int, interlaced: int = 0) -> bytes:
    """A PNG in RGB of 8 bits, of rows that begin with their filter's byte."""

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
            with pytest.raises(PatchSetError, match=f"does not hold {size} rows"):
                decode_patch(packed_png(wrong, size, kind), "x", size, "png")


def png(width: int, height: int, depth: int = 8, colours: int = 2) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("data", "image_format", "part"),
    [
        (png(100_000, 100_000), "png", "100000×100000"),
        (png(32, 32, depth=16), "png", "16 bits"),
        (png(32, 32, colours=6), "png", "type 6"),
        (encoded("jpg", 32, 32, "CMYK"), "jpg", "4 channels"),
        (encoded("jpg", 32, 32, "L"), "jpg", "1 channels"),
        (encoded("webp", 32, 32, lossless=False), "webp", "one lossless picture"),
        (b"P6\n32 32\n65535\n" + bytes(6 * 32 * 32), "ppm", "255"),
        (b"P6\n99999 99999\n255\n", "ppm", "99999×99999"),
        (encoded("jpg", 32, 32) + b"\xff\xda" * MAX_SCANS, "jpg", "scans"),
        (encoded("png", 32, 32) + bytes(2 << 20), "png", "expected at most"),
    ],
)
def test_what_no_set_holds(data: bytes, image_format: str, part: str) -> None:
    for look in (check_patch, decode_patch):
        with pytest.raises(PatchSetError, match=part) as caught:
            look(data, "here", 32, image_format)
        assert str(caught.value).startswith("here: ") and "\n" not in str(caught.value)
