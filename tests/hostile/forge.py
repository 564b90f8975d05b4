"""Helpers that change a set and sign the set: all digests are computed again, as an attacker can do."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.format import tar
from tests.helpers.resign import Change, put_manifest, resign

Make = Callable[[Path], None]


def signed(change: Change) -> Make:
    """Change only the manifest of a set, and sign."""
    return lambda world: resign(world / "set", change)


def text(change: Callable[[bytes], bytes]) -> Make:
    """Change the bytes of a set's manifest. The result may be text that no JSON writer writes."""

    def make(world: Path) -> None:
        put_manifest(world / "set", change((world / "set" / "manifest.json").read_bytes()))

    return make


def members(world: Path, number: int = 0) -> list[bytes]:
    """Return the encoded patches of a shard of the good set."""
    table = pq.read_table(world / "set" / f"patches-{number:06d}.parquet")
    data = (world / "set" / f"patches-{number:06d}.tar").read_bytes()
    places = zip(table["offset"].to_pylist(), table["size"].to_pylist(), strict=True)
    return [data[offset : offset + size] for offset, size in places]


def put_images(
    world: Path, images: Sequence[bytes], image_format: str = "png", change: Change = lambda value: None
) -> None:
    """Fill the first shard with these encoded images, and sign. For formats other than PNG, fill both shards."""
    for number in range(1 if image_format == "png" else 2):
        data, offsets = b"", []
        for row, image in enumerate(images):
            data += tar.header(f"{4 * number + row:09d}.{image_format}", len(image))
            offsets.append(len(data))
            data += image + tar.padding(len(image))
        (world / "set" / f"patches-{number:06d}.tar").write_bytes(data + tar.END)
        columns = {
            "offset": pa.array(offsets, pa.int64()),
            "size": pa.array([len(image) for image in images], pa.int64()),
            "sha256": pa.array([hashlib.sha256(image).digest() for image in images], pa.binary(32)),
        }
        put_columns(world, columns, number)

    def encode(value: dict[str, Any]) -> None:
        if image_format != "png":
            value["encoding"] = {"format": image_format}
        change(value)

    resign(world / "set", encode)


def put_columns(world: Path, columns: dict[str, pa.Array], number: int = 0, **options: Any) -> None:
    """Replace columns of a table of the set. This function does not sign."""
    path = world / "set" / f"patches-{number:06d}.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), pa.field(name, values.type, nullable=False), values)
    pq.write_table(table, path, **options)


def in_table(change: Callable[[pa.Table], pa.Table], **options: Any) -> Make:
    """Replace a set's first table by the result of ``change``, written with ``options``, and sign."""

    def make(world: Path) -> None:
        path = world / "set" / "patches-000000.parquet"
        pq.write_table(change(pq.read_table(path)), path, **options)
        resign(world / "set")

    return make


def in_shard(change: Callable[[bytes], bytes], name: str = "patches-000000.tar") -> Make:
    """Change the bytes of one file of a set, and sign."""

    def make(world: Path) -> None:
        path = world / "set" / name
        path.write_bytes(change(path.read_bytes()))
        resign(world / "set")

    return make


def sparse(path: Path, length: int) -> None:
    """Write a sparse file of ``length`` bytes."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        os.truncate(file.fileno(), length)


def reheader(block: bytes, **fields: tuple[int, bytes]) -> bytes:
    """Return a tar header with bytes replaced at offsets, as in ``name=(0, b"x")``, and with the correct checksum."""
    data = bytearray(block)
    for at, content in fields.values():
        data[at : at + len(content)] = content
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\x00 " % sum(data)
    return bytes(data)
