"""Hostile shards: members of every kind that is allowed in a tar, but not in a set."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

from manifests.format import tar
from tests.helpers.resign import resign
from tests.hostile.case import Case
from tests.hostile.forge import Make, in_shard, members, reheader

ENTRANCES = ("verify", "open", "train", "stream")
FIRST = "000000000.png"
BLOCK = tar.BLOCK


def _first(**fields: tuple[int, bytes]) -> Make:
    """Replace fields of the first header, correct its checksum, and sign."""
    return in_shard(lambda data: reheader(data[:BLOCK], **fields) + data[BLOCK:])


def _before(block: Callable[[], bytes]) -> Make:
    return in_shard(lambda data: block() + data)


def _written(kind: bytes, name: str = FIRST, linkname: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, linkname, 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)


def _extended(kind: bytes, content: bytes) -> bytes:
    """Return an extended header of PAX or GNU, with its content."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + tar.padding(len(content))


def _pax(**records: str) -> bytes:
    lines = b""
    for key, value in records.items():
        rest = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        lines += str(length).encode() + rest
    return _extended(b"x", lines)


def _rewritten(form: int) -> Make:
    """Write the same members as a tar of another format, and sign."""

    def make(world: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for row, data in enumerate(members(world)):
                info = tarfile.TarInfo(f"{row:09d}.png")
                info.size, info.mode = len(data), 0o644
                archive.addfile(info, io.BytesIO(data))
        (world / "set" / "patches-000000.tar").write_bytes(out.getvalue())
        resign(world / "set")

    return make


def _pickled(suffix: str) -> Make:
    """Put a pickle that would run a command before the first member, and sign."""
    code = b"cos\nsystem\n(S'touch hacked'\ntR."

    def change(data: bytes) -> bytes:
        return tar.header(f"000000000.{suffix}", len(code)) + code + tar.padding(len(code)) + data

    return in_shard(change)


def _twice(data: bytes) -> bytes:
    length = BLOCK + int(data[124:135], 8)
    return data[: length + -length % BLOCK] + data


def _compressed(world: Path) -> None:
    path = world / "set" / "patches-000000.tar"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.add(path, FIRST)
    path.write_bytes(out.getvalue())
    resign(world / "set")


def _sum_off(data: bytes) -> bytes:
    return data[:148] + b"000000\x00 " + data[156:]


def _padded(data: bytes) -> bytes:
    """Write a byte other than zero into the padding after the first member."""
    end = BLOCK + int(data[124:135], 8)
    return data[:end] + b"\1" + data[end + 1 :]


def _pickle_shard(world: Path) -> None:
    (world / "set" / "patches-000000.tar").write_bytes(pickle.dumps({"a": 1}))
    resign(world / "set")


KINDS = {
    "link": b"2",
    "hard link": b"1",
    "character device": b"3",
    "block device": b"4",
    "folder": b"5",
    "pipe": b"6",
}
CHANGED: dict[str, Make] = {
    **{
        f"first member is a {kind}": _first(kind=(156, letter), link=(157, b"/etc/passwd"))
        for kind, letter in KINDS.items()
    },
    **{
        f"a {kind} before the first member": _before(lambda letter=letter: _written(letter, "x", "../../x"))
        for kind, letter in KINDS.items()
    },
    "contiguous file": _first(kind=(156, b"7")),
    "old kind of file": _first(kind=(156, b"\x00")),
    "GNU sparse file": _first(kind=(156, b"S")),
    "GNU multi-volume": _first(kind=(156, b"M")),
    "name with ..": _first(name=(0, b"../000000000.png\x00")),
    "absolute name": _first(name=(0, b"/tmp/hacked.png\x00")),
    "name with a path": _first(name=(0, b"a/000000000.png\x00")),
    "name in the prefix": _first(prefix=(345, b"..")),
    "name of a command": _first(name=(0, b"pipe:touch hacked\x00")),
    "name of an index too far": _first(name=(0, b"999999999.png")),
    "name of the second patch": _first(name=(0, b"000000001.png")),
    "name in capitals": _first(name=(0, b"000000000.PNG")),
    "name in Arabic digits": _first(name=(0, "\u0660".encode() * 9 + b".png")),
    "name of two extensions": _first(name=(0, b"000000000.png.pyd")),
    "set-uid file": _first(mode=(100, b"0004755")),
    "size of 8 GB": _first(size=(124, b"77777777777")),
    "size of -1": _first(size=(124, b"-0000000001")),
    "size of 2^63, base 256": _first(size=(124, b"\x80\x00\x00\x00\x7f" + b"\xff" * 7)),
    "size of -2^63, base 256": _first(size=(124, b"\xff" * 4 + b"\x80" + b"\x00" * 7)),
    "size with a sign in spaces": _first(size=(124, b"      +1000 ")),
    "size of 0": _first(size=(124, b"00000000000")),
    "checksum of 0": in_shard(_sum_off),
    "PAX path": _before(lambda: _pax(path="../../hacked")),
    "PAX size": _before(lambda: _pax(size="99999999999")),
    "PAX sparse": _before(lambda: _pax(GNU_sparse_major="1", GNU_sparse_realsize="1000000000000")),
    "PAX link": _before(lambda: _pax(linkpath="/etc/passwd")),
    "PAX header of 8 MB": _before(lambda: _pax(comment="x" * (8 << 20))),
    "PAX header that lies about its length": _before(lambda: _extended(b"x", b"99999999 path=x\n")),
    "global PAX header": _before(lambda: _extended(b"g", b"20 path=../../hacked\n"[:20])),
    "GNU long name": _before(lambda: _extended(b"L", b"../" * 1000 + b"\x00")),
    "GNU long name of 8 MB": _before(lambda: _extended(b"L", b"x" * (8 << 20))),
    "GNU long link": _before(lambda: _extended(b"K", b"/etc/passwd\x00")),
    "tar of GNU": _rewritten(tarfile.GNU_FORMAT),
    "tar of PAX": _rewritten(tarfile.PAX_FORMAT),
    "member twice": in_shard(_twice),
    **{f"pickle called .{suffix}": _pickled(suffix) for suffix in ("pyd", "pth", "pkl", "pickle", "json", "cls")},
    "compressed tar": _compressed,
    "padding that is not zero": in_shard(_padded),
    "pickle for a tar": _pickle_shard,
    "empty tar": in_shard(lambda data: tar.END),
    "no bytes": in_shard(lambda data: b""),
}
AFTER: dict[str, Make] = {
    "bytes behind the end": in_shard(lambda data: data + b"#!/bin/sh\ntouch hacked\n"),
    "zeros behind the end": in_shard(lambda data: data + bytes(10_240)),
    "two archives in one": in_shard(lambda data: data + data),
    "member too many": in_shard(lambda data: data[:-1024] + tar.header("000000004.png", 0) + data[-1024:]),
    "no end": in_shard(lambda data: data[:-1024]),
    "half an end": in_shard(lambda data: data[:-512]),
}
CASES = (
    *(Case(name=f"tar: {name}", make=make, entrances=ENTRANCES, said="byte") for name, make in CHANGED.items()),
    *(
        Case(name=f"tar: {name}", make=make, entrances=ENTRANCES, said="after the last member")
        for name, make in AFTER.items()
    ),
)
