"""Hostile images and tars of other people, to pack or to evaluate on."""

import bz2
import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse
from tests.hostile.images import CODE, HUGE, chunk, declare_jpeg, declare_webp, png, saved, scans, zip_bomb
from tests.hostile.world import write_tar


def _image(data: Callable[[], bytes], suffix: str = "png") -> Make:
    """Replace an image in the folder to pack, and in the evaluation folder."""

    def make(world: Path) -> None:
        (world / "images" / "0.png").unlink()
        (world / "images" / f"0.{suffix}").write_bytes(data())
        (world / "classes" / "c0" / "x.png").unlink()
        (world / "classes" / "c0" / f"x.{suffix}").write_bytes(data())

    return make


def _tar(data: Callable[[], bytes]) -> Make:
    """Replace the tar to pack, and the evaluation tar."""

    def make(world: Path) -> None:
        (world / "images.tar").write_bytes(data())
        (world / "eval.tar").write_bytes(data())

    return make


def _of(*members: tuple[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Callable[[], bytes]:
    def data() -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return out.getvalue()

    return data


def _kind(kind: bytes, linkname: str = "/etc/passwd") -> Callable[[], bytes]:
    def data() -> bytes:
        info = tarfile.TarInfo("0.png")
        info.type, info.linkname = kind, linkname
        return info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)

    return data


def _gzip_bomb(world: Path) -> None:
    """Replace all images to pack by a compressed tar with one member of 1 GB of zeros."""
    info = tarfile.TarInfo("0.png")
    info.size = 1 << 30
    for name in ("images.tar", "eval.tar"):
        (world / name).unlink()
    with gzip.open(world / "images" / "x.tar.gz", "wb", compresslevel=1) as out:
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(1 << 6):
            out.write(bytes(16 << 20))
        out.write(bytes(1024))
    for path in (world / "images").glob("*.png"):
        path.unlink()


def _huge_image(world: Path) -> None:
    for path in (world / "images" / "0.png", world / "classes" / "c0" / "x.png"):
        sparse(path, 1 << 40)


def _mixed(world: Path) -> None:
    write_tar(world / "eval.tar", [("0.png", saved("PNG")), ("0.cls", b"9" * 5000)])
    (world / "images" / "x.tar").write_bytes((world / "images.tar").read_bytes())


FOLDERS = ("pack", "eval-folder")
IMAGES: dict[str, tuple[Make, str]] = {
    "PNG of 100,000 × 100,000": (_image(lambda: png(HUGE, HUGE, pixels=b"x")), "0.png|x.png"),
    "PNG of 100,000 × 1": (_image(lambda: png(HUGE, 1, pixels=zip_bomb(1 << 20))), "0.png|x.png|2 sizes"),
    "PNG with a text of 600 MB": (
        _image(lambda: png(32, 32, chunk(b"zTXt", b"a\0\0" + zip_bomb(600 << 20)))),
        "0.png|x.png",
    ),
    "PNG with a profile of 600 MB": (
        _image(lambda: png(32, 32, chunk(b"iCCP", b"a\0\0" + zip_bomb(600 << 20)))),
        "0.png|x.png",
    ),
    "JPEG of 65,535 px": (_image(lambda: declare_jpeg(65_535), "jpg"), "0.jpg|x.jpg"),
    "JPEG of 20,000 scans": (_image(lambda: scans(20_000), "jpg"), "0.jpg|x.jpg"),
    "WebP of 16,384 px": (_image(lambda: declare_webp(16_384), "webp"), "0.webp|x.webp"),
    "PPM of 99,999 px": (_image(lambda: b"P6 99999 99999 255\n" + bytes(99), "ppm"), "0.ppm|x.ppm"),
    "pickle": (_image(lambda: CODE), "0.png|x.png"),
    "PostScript": (
        _image(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%pipe%touch hacked\n"),
        "0.png|x.png",
    ),
    "file of 1 TB": (_huge_image, "0.png|x.png"),
    "no bytes": (_image(lambda: b""), "0.png|x.png"),
}
TARS: dict[str, tuple[Make, str]] = {
    "link": (_tar(_kind(b"2")), ""),
    "hard link": (_tar(_kind(b"1")), ""),
    "hard link to itself": (_tar(_kind(b"1", "0.png")), ""),
    "device": (_tar(_kind(b"3")), ""),
    "pipe": (_tar(_kind(b"6")), ""),
    "pickle for an image": (_tar(_of(("0.png", CODE), ("0.cls", b"0"))), "0"),
    "pickle beside no image": (_tar(_of(("0.pkl", CODE), ("0.pyd", CODE), ("0.cls", b"0"))), ""),
    "image of 100,000 × 100,000": (_tar(_of(("0.png", png(HUGE, HUGE, pixels=b"x")), ("0.cls", b"0"))), "0"),
    "GNU name of 8 MB": (_tar(_of(("x" * (8 << 20) + ".png", b"x"), form=tarfile.GNU_FORMAT)), ""),
    "PAX header of 8 MB": (_tar(_of(("x" * (8 << 20) + ".png", b"x"), form=tarfile.PAX_FORMAT)), ""),
    "no end": (_tar(lambda: _of(("0.png", saved("PNG")))()[:1024]), "tar"),
    "size of 8 GB": (_tar(lambda: _sized(b"77777777777")), "tar"),
    "size of -2^63": (_tar(lambda: _sized(b"\xff" * 4 + b"\x80" + bytes(7))), "tar"),
    "no bytes": (_tar(lambda: b""), "tar"),
    "zeros": (_tar(lambda: bytes(1 << 20)), "tar"),
    "lone PAX header": (_tar(lambda: _of(("x" * 300 + ".png", b"x"), form=tarfile.PAX_FORMAT)()[:1024]), "tar"),
}


def _sized(size: bytes) -> bytes:
    from tests.hostile.forge import reheader

    data = _of(("0.png", saved("PNG")))()
    return reheader(data[:512], size=(124, size)) + data[512:]


def _sparse_member(kind: bytes, name: str) -> Make:
    """Write tars whose first member has 1 GB. The files are sparse on disk."""

    def make(world: Path) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, 1 << 30
        for path in (world / "images.tar", world / "eval.tar"):
            path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
            os.truncate(path, 512 + (1 << 30) + 1024)

    return make


def _bzipped() -> bytes:
    return bz2.compress(_of(("0.png", saved("PNG")), ("0.cls", b"0"))())


def _one_bit(side: int) -> bytes:
    """Return a PNG of one bit a pixel. The file has a few kilobytes, also for a large ``side``."""
    return png(side, side, pixels=zlib.compress(bytes((1 + (side + 7) // 8) * side)), depth=1, colors=0)


def _many_scans() -> bytes:
    """Return a file with two pictures, of which the first is a JPEG of 1,500 scans. Pillow calls this format MPO."""
    data = saved("MPO", 64, progressive=True, save_all=True, append_images=[Image.new("RGB", (64, 64))])
    end = data.index(b"\xff\xd9\xff\xd8")
    last = data.rindex(b"\xff\xda", 0, end)
    return data[:end] + data[last:end] * 1500 + data[end:]


TARS |= {
    "member of 1 GB": (_sparse_member(b"0", "0.png"), ""),
    "GNU name of 1 GB": (_sparse_member(b"L", "././@LongLink"), "headers of more than"),
    "PAX header of 1 GB": (_sparse_member(b"x", "x"), "headers of more than"),
    "tar compressed by another program": (_tar(_bzipped), "tar"),
}
IMAGES["JPEG of 1,500 scans of two pictures"] = (_image(_many_scans, "jpg"), "scans, expected at most")
CASES = (
    Case(
        name="images: PNG of 13,000 px in one bit",
        make=_image(lambda: _one_bit(13_000)),
        entrances=("eval-folder",),
        said="too large: 13000×13000",
    ),
    *(Case(name=f"images: {name}", make=make, entrances=FOLDERS, said=said) for name, (make, said) in IMAGES.items()),
    *(
        Case(name=f"tar of images: {name}", make=make, entrances=("pack-tar", "eval"), said=said)
        for name, (make, said) in TARS.items()
    ),
    Case(name="images: a bomb of a compressed tar", make=_gzip_bomb, entrances=("pack",), said="x.tar.gz"),
    Case(name="tar of images: class of 5,000 digits", make=_mixed, entrances=("eval", "pack"), said=""),
)
