"""Hostile weight files of a wrong layout: zips of two directories or overlapping parts, old files without numbers."""

import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.forge import Make

MEGA = 1 << 20
DAMAGED = "not a PyTorch file of tensors"


def zipped(change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Make:
    """Change the members of a file of ``torch.save``."""

    def make(world: Path) -> None:
        old = (world / "weights.pt").read_bytes()
        with (
            zipfile.ZipFile(io.BytesIO(old)) as source,
            zipfile.ZipFile(world / "weights.pt", "w", compression) as out,
        ):
            for name in source.namelist():
                out.writestr(name, change(name, source.read(name)))

    return make


def _bomb(world: Path) -> None:
    """Write a zip of 600 KB with a part that expands to 600 MB."""
    with zipfile.ZipFile(world / "weights.pt", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        out.writestr("archive/version", "3\n")
        with out.open("archive/data/0", "w", force_zip64=True) as part:
            for _ in range(600):
                part.write(bytes(MEGA))


def _overlapping(world: Path) -> None:
    """Write a zip whose directory names one stored part 5,000 times."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data/0", bytes(MEGA))
        info = archive.infolist()[0]
        for number in range(1, 5000):
            other = zipfile.ZipInfo(f"archive/data/{number}")
            other.file_size, other.compress_size, other.CRC = info.file_size, info.compress_size, info.CRC
            other.header_offset = info.header_offset
            archive.filelist.append(other)
    (world / "weights.pt").write_bytes(out.getvalue())


def _many_parts(world: Path) -> None:
    with zipfile.ZipFile(world / "weights.pt", "w") as out:
        for number in range(60_000):
            out.writestr(f"archive/data/{number}", b"")


def _two_directories(world: Path) -> None:
    """Write a zip with two directories, so that two readers find different parts.

    Python reads the directory directly before the end record, with parts of one byte. A reader that uses the offset
    in the end record reads the other directory, with a part of 64 MB.
    """
    path = world / "weights.pt"
    zipped(lambda name, data: bytes(64 * MEGA) if name.endswith("/data/0") else data, zipfile.ZIP_DEFLATED)(world)
    bomb, out = path.read_bytes(), io.BytesIO()
    with zipfile.ZipFile(path) as names, zipfile.ZipFile(out, "w") as small:
        for name in names.namelist():
            small.writestr(name, b"x")
    first, end = bytearray(out.getvalue()), bomb.rindex(b"PK\x05\x06")
    (start,), (other,) = (struct.unpack("<I", data[-6:-2]) for data in (first, bomb))
    at = start
    # The directory does not begin at the offset in the end record. Python adds the difference to every offset.
    while first[at : at + 4] == b"PK\x01\x02":
        (place,) = struct.unpack_from("<I", first, at + 42)
        struct.pack_into("<I", first, at + 42, place + other - start)
        at += 46 + sum(struct.unpack_from("<HHH", first, at + 28))
    path.write_bytes(bomb[:end] + bytes(first[:at]) + bomb[end:])


def _legacy(value: Any) -> list[bytes]:
    """Return the parts of a file in the format before PyTorch 1.6: header, pickle, keys and numbers of storages."""
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=False)
    data, stream, ends = out.getvalue(), io.BytesIO(out.getvalue()), []
    for _ in range(5):
        list(pickletools.genops(stream))
        ends.append(stream.tell())
    return [data[: ends[2]], data[ends[2] : ends[3]], data[ends[3] : ends[4]], data[ends[4] :]]


def _good(world: Path) -> dict[str, Any]:
    return dict(torch.load(world / "weights.pt", weights_only=True))


def _without_numbers(world: Path) -> None:
    before, tensors, _, _ = _legacy(_good(world))
    (world / "weights.pt").write_bytes(before + tensors + pickle.dumps([], protocol=2))


def _named_twice(world: Path) -> None:
    """Write a file with the numbers of one storage twice, and without the numbers of another storage."""
    before, tensors, keys, numbers = _legacy(_good(world))
    names = [name for code, name, _ in pickletools.genops(keys) if code.name == "BINUNICODE"]
    (world / "weights.pt").write_bytes(before + tensors + pickle.dumps([names[0], *names[:-1]], protocol=2) + numbers)


def _cut(world: Path) -> None:
    (world / "weights.pt").write_bytes(b"".join(_legacy(_good(world)))[:-1])


def _grown(world: Path) -> None:
    """Write a file of a few hundred bytes with a tensor of 1.2 GB. A bad reader returns uninitialized memory."""
    before, tensors, _, _ = _legacy({"linear.weight": torch.zeros(5)})
    tensors = tensors.replace(b"K\x05", b"J" + struct.pack("<i", 300_000_000))
    (world / "weights.pt").write_bytes(before + tensors + pickle.dumps([], protocol=2))


def _sparse(of: Callable[[dict[str, Any], torch.Tensor], dict[str, Any]]) -> Make:
    """Write a file of the old format with good tensors and a tensor of 15 GB. The file is sparse on disk."""

    def make(world: Path) -> None:
        before, tensors, keys, numbers = _legacy(of(_good(world), torch.zeros(5)))
        count = struct.pack("<q", 15 << 28)
        at = numbers.index(struct.pack("<q", 5) + bytes(20))
        with (world / "weights.pt").open("wb") as file:
            file.write(before + tensors.replace(b"K\x05", b"\x8a\x08" + count) + keys + numbers[:at] + count)
            file.truncate(file.tell() + (15 << 30))
            file.seek(0, os.SEEK_END)
            file.write(numbers[at + 28 :])

    return make


def _pickled(data: Callable[[], bytes]) -> Make:
    return zipped(lambda name, old: data() if name.endswith("data.pkl") else old)


def _put(world: Path, data: bytes) -> None:
    (world / "weights.pt").write_bytes(data)


ARCHIVES: dict[str, tuple[Make, str]] = {
    "zip bomb": (_bomb, "weights.pt"),
    "zip of compressed parts": (zipped(lambda name, data: data, zipfile.ZIP_DEFLATED), "compressed"),
    "zip of parts that overlap": (_overlapping, DAMAGED),
    "zip of 60,000 parts": (_many_parts, DAMAGED),
    "zip of two directories": (_two_directories, DAMAGED),
    "zip behind other bytes": (
        lambda world: _put(world, b"PK\x03\x04" + (world / "weights.pt").read_bytes()),
        DAMAGED,
    ),
    "zip whose tensors are shorter than they say": (
        zipped(lambda name, data: data[: len(data) // 2] if "/data/" in name else data),
        DAMAGED,
    ),
    "zip of names of 100 MB": (_pickled(lambda: b"\x80\x02" + b"}" * 100 * MEGA), "names and plain values have"),
    "zip of keys with one hash": (
        _pickled(lambda: b"\x80\x02}(" + b"K\x01\x85K\x01" * 9 + b"u."),
        "no state dict",
    ),
    "zip that gives a dict attributes": (
        _pickled(lambda: b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb."),
        DAMAGED,
    ),
    "old file without its numbers": (_without_numbers, "but its tensors need"),
    "old file with some numbers twice": (_named_twice, DAMAGED),
    "old file that was cut": (_cut, DAMAGED),
    "old file of 1.2 GB that are not there": (_grown, "but its tensors need"),
    "old file of 15 GB": (_sparse(lambda state, x: state | {"x": x}), "bytes, expected at most"),
    "old file of 15 GB beside good weights": (
        _sparse(lambda state, x: {"state_dict": state, "x": x}),
        "bytes, expected at most",
    ),
}
