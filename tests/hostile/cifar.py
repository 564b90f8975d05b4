"""Hostile CIFAR files: binary records, and pickles that contain more than arrays."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case
from tests.hostile.forge import Make, sparse
from tests.hostile.images import CODE

PIXELS = 3072


def _cifar(data: Callable[[bytes], bytes]) -> Make:
    """Change the bytes of every CIFAR file."""

    def make(world: Path) -> None:
        for path in (world / "cifar").iterdir():
            path.write_bytes(data(path.read_bytes()))

    return make


def _pickled(data: bytes) -> Make:
    """Replace all CIFAR files by files in Python's form with these bytes."""

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


def _array(shape: bytes, data: bytes = b"U\x01x", labels: bytes = b"](K\x00e") -> bytes:
    """Return a pickle in CIFAR's form, with an array of this shape and data."""
    return b"\x80\x02}(U\x04data" + _items(shape, data) + b"U\x06labels" + labels + b"u."


def _items(shape: bytes, data: bytes) -> bytes:
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89" + data + b"tb"
    )


def _number(value: int) -> bytes:
    """Return the pickle opcodes of a 64-bit integer."""
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
)
