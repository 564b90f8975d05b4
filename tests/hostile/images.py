"""Hostile images as patches of a set: false sizes, decompression bombs, damaged files, files of other formats."""

import functools
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.case import Case
from tests.hostile.forge import Make, members, put_images

HUGE = 100_000
CODE = b"cos\nsystem\n(S'touch hacked'\ntR."
READ = ("verify", "open", "train", "stream")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, pixels: bytes = b"", depth: int = 8, colors: int = 2) -> bytes:
    """Return a PNG that declares this size, with the chunks ``extra`` before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _pixels(rows: int = 32) -> bytes:
    return zlib.compress((b"\x00" + bytes(96)) * rows)


@functools.cache
def zip_bomb(length: int) -> bytes:
    """Return ``length`` zeros, compressed by zlib."""
    squeeze = zlib.compressobj(9)
    data = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(length >> 20))
    return data + squeeze.flush()


def saved(form: str, size: int = 32, mode: str = "RGB", **options: object) -> bytes:
    """Return a square image of noise, encoded by Pillow."""
    noise = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, form, **options)
    return out.getvalue()


def scans(count: int) -> bytes:
    """Return a progressive JPEG that repeats its last scan ``count`` times."""
    data = saved("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def cut_jpeg(share: float, **options: object) -> bytes:
    """Return a JPEG with only a share of the bytes of its scans, and with an end marker."""
    data = saved("JPEG", **options)
    start = data.index(b"\xff\xda")
    start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data[: start + int(share * (len(data) - start))] + b"\xff\xd9"


def declare_jpeg(side: int) -> bytes:
    """Return a JPEG whose frame header declares another size."""
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def declare_webp(side: int) -> bytes:
    """Return a lossless WebP that declares another size."""
    data = bytearray(saved("WEBP", lossless=True))
    bits = struct.unpack("<I", data[21:25])[0] >> 28 << 28
    data[21:25] = struct.pack("<I", bits | (side - 1) | (side - 1) << 14)
    return bytes(data)


def animated(form: str) -> bytes:
    """Return one file with two pictures."""
    first, second = (Image.new("RGB", (32, 32), color) for color in ("red", "blue"))
    out = io.BytesIO()
    first.save(out, form, save_all=True, append_images=[second], lossless=True)
    return out.getvalue()


def _first(data: Callable[[], bytes]) -> Make:
    """Replace the first patch of the set by another image, and sign."""
    return lambda world: put_images(world, [data(), *members(world)[1:]])


def _all(image_format: str, good: Callable[[], bytes], data: Callable[[], bytes]) -> Make:
    """Make a set of another format whose first patch is the hostile image, and sign."""
    return lambda world: put_images(world, [data(), *[good()] * 3], image_format)


def _half(world: Path) -> None:
    images = members(world)
    put_images(world, [images[0][: len(images[0]) // 2], *images[1:]])


def _jpg(data: Callable[[], bytes]) -> Make:
    return _all("jpg", lambda: saved("JPEG"), data)


def _webp(data: Callable[[], bytes]) -> Make:
    return _all("webp", lambda: saved("WEBP", lossless=True), data)


def _ppm(data: Callable[[], bytes]) -> Make:
    return _all("ppm", lambda: saved("PPM"), data)


BODY = bytes(3 * 32 * 32)
PNG: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG of 100,000 × 100,000": (lambda: png(HUGE, HUGE, pixels=_pixels()), "too large"),
    "PNG of 100,000 × 100,000 with a bomb": (lambda: png(HUGE, HUGE, pixels=zip_bomb(64 << 20)), "too large"),
    "PNG of 0 × 0": (lambda: png(0, 0, pixels=_pixels()), "not a whole image"),
    "PNG of 2^31 px": (lambda: png(2**31, 2**31, pixels=_pixels()), "too large"),
    "PNG of 33 px": (lambda: png(33, 33, pixels=_pixels()), "33×33"),
    "PNG of one row": (lambda: png(32, 32, pixels=_pixels(1)), "not a whole image"),
    "PNG of 16 bits": (lambda: png(32, 32, pixels=_pixels(64), depth=16), "not a whole image"),
    "PNG with a palette": (lambda: png(32, 32, pixels=_pixels(), colors=3), "not a whole image"),
    "PNG of gray": (lambda: saved("PNG", mode="L"), "not a whole image"),
    "PNG with alpha": (lambda: saved("PNG", mode="RGBA"), "not a whole image"),
    "PNG of two pictures": (lambda: animated("PNG"), "one picture"),
    "PNG with a text of 600 MB": (
        lambda: png(32, 32, chunk(b"zTXt", b"a\0\0" + zip_bomb(600 << 20)), pixels=_pixels()),
        "",
    ),
    "PNG with a profile of 600 MB": (
        lambda: png(32, 32, chunk(b"iCCP", b"a\0\0" + zip_bomb(600 << 20)), pixels=_pixels()),
        "",
    ),
    "PNG with a text of 2 MB": (
        lambda: png(32, 32, chunk(b"tEXt", b"a\0" + bytes(2 << 20)), pixels=_pixels()),
        "at most|the header at byte 0 is wrong",
    ),
    "PNG with a chunk of 2^31 bytes": (
        lambda: png(32, 32, b"\x7f\xff\xff\xfftEXt", pixels=_pixels()),
        "not a whole image",
    ),
    "BMP called PNG": (lambda: saved("BMP"), "not a whole image"),
    "GIF called PNG": (lambda: saved("GIF"), "not a whole image"),
    "TIFF called PNG": (lambda: saved("TIFF"), "not a whole image"),
    "EPS called PNG": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%pipe%touch hacked\n",
        "not a whole",
    ),
    "SVG called PNG": (lambda: b'<svg><image href="file:///etc/passwd"/></svg>', "not a whole image"),
    "pickle called PNG": (lambda: CODE, "not a whole image"),
    "no bytes called PNG": (lambda: b"", "not a whole image"),
}
JPG: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG of 65,535 px": (lambda: declare_jpeg(65_535), "too large"),
    "JPEG of 0 px": (lambda: declare_jpeg(0), "not a whole image"),
    "JPEG of 2,000 scans": (lambda: scans(2000), "scans, expected at most"),
    "JPEG of gray": (lambda: saved("JPEG", mode="L"), "not a whole image"),
    "JPEG of CMYK": (lambda: saved("JPEG", mode="CMYK"), "not a whole image"),
    "JPEG cut off in its header": (lambda: saved("JPEG")[:100], "not a whole image"),
    "JPEG of no pixels": (lambda: cut_jpeg(0), "not a whole image"),
    "JPEG of a third of its pixels": (lambda: cut_jpeg(1 / 3), "not a whole image"),
    "JPEG of no pixels, progressive": (lambda: cut_jpeg(0, progressive=True), "not a whole image"),
    "JPEG without an end": (lambda: saved("JPEG")[:-2], "not a whole image"),
    "PNG called JPEG": (lambda: saved("PNG"), "not a whole image"),
}
WEBP: dict[str, tuple[Callable[[], bytes], str]] = {
    "WebP of 16,384 px": (lambda: declare_webp(16_384), "too large"),
    "WebP of two pictures": (lambda: animated("WEBP"), "not a whole image"),
    "WebP that is lossy": (lambda: saved("WEBP"), "not a whole image"),
    "WebP cut off": (lambda: saved("WEBP", lossless=True)[:200], "not a whole image"),
}
PPM: dict[str, tuple[Callable[[], bytes], str]] = {
    "PPM of 99,999 px": (lambda: b"P6 99999 99999 255\n" + BODY, "too large"),
    "PPM of 10^30 px": (lambda: b"P6 " + b"1" + b"0" * 30 + b" 32 255\n" + BODY, "not a whole image"),
    "PPM of -32 px": (lambda: b"P6 -32 -32 255\n" + BODY, "not a whole image"),
    "PPM with a maximum of 65535": (lambda: b"P6 32 32 65535\n" + BODY * 2, "not a whole image"),
    "PPM with a maximum of 10^9": (lambda: b"P6 32 32 1000000000\n" + BODY, "not a whole image"),
    "PPM with a comment of 800 KB": (lambda: b"P6 #" + b"x" * 800_000 + b"\n32 32 255\n" + BODY, "not a whole image"),
    "PPM in plain text": (lambda: b"P3 32 32 255\n" + b"0 " * 3072, "not a whole image"),
    "PPM cut off": (lambda: b"P6 32 32 255\n" + BODY[:-1], "not a whole image"),
}
KINDS = ((PNG, _first), (JPG, _jpg), (WEBP, _webp), (PPM, _ppm))
CASES = (
    *(
        Case(name=f"image: {name}", make=how(data), entrances=READ, said=said)
        for kind, how in KINDS
        for name, (data, said) in kind.items()
    ),
    Case(name="image: PNG cut off in its middle", make=_half, entrances=READ, said="not a whole image"),
)
