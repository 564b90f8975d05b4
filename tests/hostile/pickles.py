"""Hostile weight files: small files that need much work to read, and tensors of types that networks do not have."""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.hostile.archives import DAMAGED
from tests.hostile.case import Case
from tests.hostile.forge import Make
from tests.hostile.weights import PT, saved

START = b"\x80\x02"
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def _global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def _doubled(depth: int, first: int = 0, leaf: bytes = b"K\x01") -> bytes:
    """Return opcodes of nested lists: each list contains the previous list twice."""
    steps = [leaf + b"q" + bytes([first])]
    for at in range(first, first + depth):
        steps.append(b"](h" + bytes([at]) + b"h" + bytes([at]) + b"eq" + bytes([at + 1]))
    return b"".join(steps)


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _zip(data: bytes) -> Make:
    def make(world: Path) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a/data.pkl", data)
            archive.writestr("a/byteorder", "little")
            archive.writestr("a/version", "3\n")
        (world / "weights.pt").write_bytes(out.getvalue())

    return make


def _legacy(world: Path) -> None:
    """Write a file with two names of storages. A comparison of the two names needs 2^40 steps."""
    keys = b"((" + _doubled(40) + b"t(" + _doubled(40, 100) + b"te."
    (world / "weights.pt").write_bytes(LEGACY + pickle.dumps({}, 2) + START + b"]" + keys)


def _local_name(world: Path) -> None:
    """Write a zip with a part whose name is UTF-8 in the directory, but not UTF-8 in the part's own header."""
    path = world / "weights.pt"
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    while b"/data/3" not in data[at + 46 : at + 80]:
        at = data.index(b"PK\x01\x02", at + 1)
    flags, *_, start = struct.unpack_from("<H32xI", data, at + 8)
    struct.pack_into("<H", data, at + 8, flags | 0x800)
    data[start + 30] = 0xFF
    path.write_bytes(data)


def _parts(world: Path) -> None:
    """Write a zip of 10 MB whose directory has 200,000 entries for one part."""
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, *[0] * 7, 1, *[0] * 6) + b"a"
    count, size = 200_000, 200_000 * len(entry)
    end = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, len(local))
    end += struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + size, 1)
    end += struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    (world / "weights.pt").write_bytes(local + entry * count + end)


def _kind(dtype: torch.dtype) -> Make:
    def change(state: dict[str, Any]) -> dict[str, Any]:
        return state | {"bn1.num_batches_tracked": torch.zeros((), dtype=dtype)}

    return saved(change)


CASES = (
    *(
        Case(name=f"weights: {name}", make=make, entrances=PT, said=said)
        for name, make, said in (
            (
                "device of values doubled 40 times",
                _zip(START + _global("torch.device") + b"(" + _doubled(40) + b"tR."),
                DAMAGED,
            ),
            (
                "text of values doubled 40 times",
                _zip(START + _global("_codecs.encode") + b"(" + _doubled(40) + b"tq\xc8N\x86R."),
                DAMAGED,
            ),
            ("names of storages doubled 40 times", _legacy, DAMAGED),
            ("name of 4.9 MB", _zip(START + b"}" + _text("module." * 700_000) + b"Ns."), "no state dict"),
            ("part whose name is no text", _local_name, DAMAGED),
            ("zip of 200,000 entries", _parts, DAMAGED),
            ("complex counter", _kind(torch.complex64), "another type of number"),
            ("counter that is a truth", _kind(torch.bool), "another type of number"),
        )
    ),
)
