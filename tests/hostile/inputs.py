"""What is packed or judged by: other people's images, tars and CIFAR's files."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse
from tests.hostile.images import CODE, HUGE, chunk, declare_jpeg, declare_webp, png, saved, scans, zip_bomb
from tests.hostile.world import write_tar

PIXELS = 3072


def _image(data: Callable[[], bytes], suffix: str = "png") -> Make:
    """An image in the folder to pack, and in that to judge by."""

    def make(world: Path) -> None:
        (world / "images" / "0.png").unlink()
        (world / "images" / f"0.{suffix}").write_bytes(data())
        (world / "classes" / "c0" / "x.png").unlink()
        (world / "classes" / "c0" / f"x.{suffix}").write_bytes(data())

    return make


def _tar(data: Callable[[], bytes]) -> Make:
    """The tar to pack, and that to judge by."""

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
    """A compressed tar of 1 GB of zeros in one member, in the place of the tars."""
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


def _cifar(data: Callable[[bytes], bytes]) -> Make:
    """Every file of CIFAR's replaced."""

    def make(world: Path) -> None:
        for path in (world / "cifar").iterdir():
            path.write_bytes(data(path.read_bytes()))

    return make


def _pickled(data: bytes) -> Make:
    """CIFAR's files as pickles of these bytes."""

    def make(world: Path) -> None:
        for path in (world / "cifar").iterdir():
            path.unlink()
        for name in ("test_batch", *(f"data_batch_{k}" for k in range(1, 6))):
            (world / "cifar" / name).write_bytes(data)

    return make


def _large(length: int) -> Make:
    def make(world: Path) -> None:
        for path in list((world / "cifar").iterdir()):
            sparse(path, length)

    return make


def _pipes(world: Path) -> None:
    for path in list((world / "cifar").iterdir()):
        path.unlink()
        os.mkfifo(path)


def _huge_image(world: Path) -> None:
    for path in (world / "images" / "0.png", world / "classes" / "c0" / "x.png"):
        sparse(path, 1 << 40)


def _mixed(world: Path) -> None:
    write_tar(world / "eval.tar", [("0.png", saved("PNG")), ("0.cls", b"9" * 5000)])
    (world / "images" / "x.tar").write_bytes((world / "images.tar").read_bytes())


FOLDERS = ("pack", "eval-folder")
IMAGES: dict[str, tuple[Make, str]] = {
    "PNG of 100,000 × 100,000": (_image(lambda: png(HUGE, HUGE, pixels=b"x")), "0.png|x.png"),
    "PNG of 100,000 × 1": (_image(lambda: png(HUGE, 1, pixels=zip_bomb(1 << 20))), "0.png|x.png|of 2 sizes"),
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


def _array(shape: bytes, data: bytes = b"U\x01x", labels: bytes = b"](K\x00e") -> bytes:
    """A pickle of CIFAR's form whose array says another shape, or has other bytes."""
    return b"\x80\x02}(U\x04data" + _items(shape, data) + b"U\x06labels" + labels + b"u."


def _items(shape: bytes, data: bytes) -> bytes:
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89" + data + b"tb"
    )


def _number(value: int) -> bytes:
    """An integer of 64 bits, as a pickle holds it."""
    return b"\x8a\x08" + value.to_bytes(8, "little")


_MANY = 400_000
_LONG = b"\x8a\xff" + b"\x01" * 255
PICKLES: dict[str, bytes] = {
    "400,000 images out of a number": _array(
        _number(_MANY) + _number(PIXELS) + b"\x86",
        data=_number(_MANY * PIXELS),
        labels=_items(_number(_MANY) + b"\x85", _number(_MANY)),
    ),
    "images that are a list doubled 25 times": (
        b"\x80\x02}(U\x04data(K\x01K\x01lq\x00" + b"0(h\x00h\x00lq\x00" * 24 + b"U\x06labels](K\x00eu."
    ),
    "shape of 60,000 numbers of 2,040 bits": _array(b"(" + _LONG + b"q\x05" + b"h\x05" * 60_000 + b"t"),
    "2,000,000 lists": b"\x80\x02" + b"]" * 2_000_000 + b".",
    "a text encoded 10,000 times": (
        b"\x80\x02X\xa0\x86\x01\x00"
        + b"x" * 100_000
        + b"q\x000c_codecs\nencode\nq\x010](U\x06latin1q\x020"
        + b"h\x01h\x00h\x02\x86R" * 10_000
        + b"e."
    ),
    "memo of 2^26": b"\x80\x02Nr\x00\x00\x00\x04.",
    "code": CODE,
    "code under numpy's name": b"cnumpy.distutils.exec_command\nexec_command\n(S'touch hacked'\ntR.",
    "numpy.load": b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
    "array of 2^62 items": _array(b"\x8a\x08" + b"\xff" * 7 + b"\x3fK\x0c\x86"),
    "array of a shape of text": _array(b"U\x02ab"),
    "array of no items": _array(b"K\x00K\x00\x86"),
    "list doubled 60 times": b"\x80\x02]q\x00" + b"".join(b"(h\x00h\x00lq\x00" for _ in range(60)) + b".",
    "lists nested 100,000 deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "2^62 bytes": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".",
    "2^31 bytes": b"\x80\x02T\xff\xff\xff\x7f.",
    "memo of 2^31": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "persistent load": b"Ptouch hacked\n.",
    "build of a dict": b"\x80\x02cnumpy\nndarray\n)\x81}U\x09__class__K\x01sb.",
}
CIFAR: dict[str, tuple[Make, str]] = {
    **{f"pickle: {name}": (_pickled(data), "batch") for name, data in PICKLES.items()},
    "a byte too many": (_cifar(lambda data: data + b"x"), "expected a multiple"),
    "no bytes": (_cifar(lambda data: b""), "expected a multiple"),
    "files of 300 GB": (_large(3073 * 100_000_000), "batch"),
    "pipes": (_pipes, "cifar"),
}
CASES = (
    *(Case(name=f"images: {name}", make=make, entrances=FOLDERS, said=said) for name, (make, said) in IMAGES.items()),
    *(
        Case(name=f"tar of images: {name}", make=make, entrances=("pack-tar", "eval"), said=said)
        for name, (make, said) in TARS.items()
    ),
    *(
        Case(name=f"CIFAR: {name}", make=make, entrances=("pack-cifar", "eval-cifar"), said=said)
        for name, (make, said) in CIFAR.items()
    ),
    Case(
        name="CIFAR: names of classes of 1 GB",
        make=lambda world: sparse(world / "cifar" / "batches.meta.txt", 1 << 30),
        entrances=("eval-cifar",),
        said="batches.meta.txt: cannot be read",
    ),
    Case(name="images: a bomb of a compressed tar", make=_gzip_bomb, entrances=("pack",), said="x.tar.gz"),
    Case(name="tar of images: class of 5,000 digits", make=_mixed, entrances=("eval", "pack"), said=""),
)
