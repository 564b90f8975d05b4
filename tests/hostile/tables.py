"""Hostile tables: false sizes, rows and types, rows that do not fit the tar, and decompression bombs."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.resign import resign
from tests.hostile.case import Case
from tests.hostile.forge import Make, in_shard, in_table, put_columns

READ = ("verify", "open")
TABLE = "patches-000000.parquet"


def _with(name: str, change: Callable[[list[Any]], list[Any]], kind: pa.DataType | None = None) -> Make:
    """Change the values of a column, and sign."""

    def make(world: Path) -> None:
        column = pq.read_table(world / "set" / TABLE)[name]
        values = pa.array(change(column.to_pylist()), kind or column.type)
        put_columns(world, {name: values})
        resign(world / "set")

    return make


def _first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value, *values[1:]]


def _renamed(table: pa.Table) -> pa.Table:
    return table.rename_columns(["Key", *table.column_names[1:]])


def _cast(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, name, table[name].cast(kind))

    return change


def _nested(table: pa.Table) -> pa.Table:
    return table.set_column(1, "index", pa.array([[k] * 3 for k in range(table.num_rows)]))


def _struct(table: pa.Table) -> pa.Table:
    return table.set_column(3, "size", pa.array([{"a": k} for k in range(table.num_rows)]))


def _null(table: pa.Table) -> pa.Table:
    return table.set_column(1, "index", pa.array([None, 1, 2, 3], pa.int64()))


def _wide(table: pa.Table) -> pa.Table:
    for number in range(6000):
        table = table.append_column(f"c{number}", pa.array([0] * table.num_rows))
    return table


def _long_keys(table: pa.Table) -> pa.Table:
    return table.set_column(0, pa.field("key", pa.string(), nullable=False), pa.array(["0" * (12 << 20)] * 4))


def _swapped(world: Path) -> None:
    """Write a table whose first column is a bomb. The footer exchanges the column's path with that of good keys."""
    path = world / "set" / TABLE
    table = pq.read_table(path).append_column("abc", pa.array(["0" * (120 << 20)] * 4))
    names = ["abc", *table.column_names[1:6], "key"]
    kept = table.select(names).rename_columns([*table.column_names[:6], "abc"])
    pq.write_table(kept, path, compression="zstd", use_dictionary=False)
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    key, other = b"\x19\x18\x03key", b"\x19\x18\x03abc"  # a list of one text: the path of a column
    footer = other.join(part.replace(other, key) for part in data[start:].split(key))
    path.write_bytes(data[:start] + footer)
    resign(world / "set")


def _footer(length: int) -> Make:
    return in_shard(lambda data: data[:-8] + struct.pack("<I", length) + b"PAR1", TABLE)


def _rows_said(world: Path) -> None:
    """Write a small file with 200,000 equal rows, and sign. The manifest still declares four rows."""
    path = world / "set" / TABLE
    table = pq.read_table(path)
    rows = pa.concat_tables([table.slice(0, 1)] * 200_000).combine_chunks()
    pq.write_table(rows, path, compression="zstd")
    resign(world / "set")


def _same_rows(world: Path) -> None:
    """Write a table of 300,000 equal rows, and a manifest that declares the same number of rows."""
    n, path = 300_000, world / "set" / TABLE
    row = pq.read_table(path).select(range(6)).slice(0, 1)
    pq.write_table(row.take(pa.array([0] * n)), path, compression="zstd")

    def change(value: dict[str, Any]) -> None:
        value["shards"][0]["n"] = value["shards"][1]["first_index"] = n
        value["n"] = n + 4

    resign(world / "set", change)


def _overlap(world: Path) -> None:
    table = pq.read_table(world / "set" / TABLE)
    offsets, sizes = table["offset"].to_pylist(), table["size"].to_pylist()
    put_columns(
        world,
        {"offset": pa.array([offsets[0]] * 4, pa.int64()), "size": pa.array([sizes[0]] * 4, pa.int64())},
    )
    resign(world / "set")


def _encrypted(data: bytes) -> bytes:
    return data[:-4] + b"PARE"


def _zeros(world: Path) -> None:
    (world / "set" / TABLE).write_bytes(b"PAR1" + bytes(1 << 20) + b"PAR1")
    resign(world / "set")


def _tar(world: Path) -> None:
    (world / "set" / TABLE).write_bytes((world / "set" / "patches-000000.tar").read_bytes())
    resign(world / "set")


BEYOND = 2**62
CASES = (
    Case(
        name="table: offset outside the tar", make=_with("offset", _first(BEYOND)), entrances=READ, said="patches-0"
    ),
    Case(name="table: offset of -512", make=_with("offset", _first(-512)), entrances=READ, said="patches-0"),
    Case(name="table: size of 2^62", make=_with("size", _first(BEYOND)), entrances=READ, said="patches-0"),
    Case(name="table: size of -1", make=_with("size", _first(-1)), entrances=READ, said="patches-0"),
    Case(
        name="table: size and offset that overflow", make=_with("size", _first(2**63 - 1)), entrances=READ, said="pat"
    ),
    Case(name="table: 300,000 rows that are one", make=_same_rows, entrances=("verify",), said="more faults"),
    Case(name="table: rows that overlap", make=_overlap, entrances=("verify",), said="the row declares"),
    Case(
        name="table: rows in another order",
        make=_with("index", lambda v: v[::-1]),
        entrances=("verify",),
        said="index",
    ),
    Case(
        name="table: keys in another order",
        make=_with("key", lambda v: v[::-1]),
        entrances=("verify",),
        said="has key",
    ),
    Case(name="table: index of 2^62", make=_with("index", _first(BEYOND)), entrances=("verify",), said="has index"),
    Case(name="table: key of a path", make=_with("key", _first("../x")), entrances=("verify",), said="has key"),
    Case(
        name="table: digest of another image",
        make=_with("sha256", lambda v: v[::-1]),
        entrances=("verify",),
        said="the row declares",
    ),
    Case(
        name="table: digest of other pixels",
        make=_with("pixels", lambda v: v[::-1]),
        entrances=("verify",),
        said="the row declares",
    ),
    Case(
        name="table: digests of MD5",
        make=_with("sha256", lambda v: [x[:16] for x in v], pa.binary(16)),
        entrances=READ,
        said="'sha256' is",
    ),
    Case(
        name="table: digests as text",
        make=_with("sha256", lambda v: [x.hex() for x in v], pa.string()),
        entrances=READ,
        said="'sha256' is",
    ),
    Case(name="table: a row too few", make=in_table(lambda t: t.slice(1)), entrances=READ, said="3 rows, "),
    Case(
        name="table: no rows",
        make=in_table(lambda t: t.slice(0, 0)),
        entrances=READ,
        said="0 rows, |but the pages end at byte",
    ),
    Case(name="table: 200,000 rows in place of 4", make=_rows_said, entrances=(*READ, "fast"), said="200000 rows, "),
    Case(name="table: column of another name", make=in_table(_renamed), entrances=READ, said="its columns begin"),
    Case(
        name="table: columns in another order",
        make=in_table(lambda t: t.select(t.column_names[::-1])),
        entrances=READ,
        said="its columns begin",
    ),
    Case(name="table: no columns", make=in_table(lambda t: t.select([])), entrances=READ, said=TABLE),
    Case(
        name="table: index as float", make=in_table(_cast("index", pa.float64())), entrances=READ, said="'index' is"
    ),
    Case(
        name="table: offset as int32", make=in_table(_cast("offset", pa.int32())), entrances=READ, said="'offset' is"
    ),
    Case(
        name="table: size as decimal",
        make=in_table(_cast("size", pa.decimal128(38))),
        entrances=READ,
        said="'size' is",
    ),
    Case(name="table: lists in a column", make=in_table(_nested), entrances=READ, said="'index'"),
    Case(name="table: structs in a column", make=in_table(_struct), entrances=READ, said="'size'"),
    Case(name="table: nulls", make=in_table(_null), entrances=READ, said="'index'"),
    Case(name="table: 6,000 columns", make=in_table(_wide), entrances=(*READ, "fast"), said=TABLE),
    Case(
        name="table: keys of 12 MB, all the same",
        make=in_table(_long_keys, compression="zstd", use_dictionary=True),
        entrances=READ,
        said=TABLE,
    ),
    Case(
        name="table: keys of 12 MB, plain and compressed",
        make=in_table(_long_keys, compression="zstd", use_dictionary=False),
        entrances=READ,
        said=TABLE,
    ),
    Case(
        name="table: two columns' names exchanged in its row groups",
        make=_swapped,
        entrances=("verify", "open", "fast"),
        said="differ from the columns of the schema",
    ),
    Case(name="table: footer of 4 GB", make=_footer(2**32 - 1), entrances=(*READ, "fast"), said=TABLE),
    Case(name="table: footer of 2 GB", make=_footer(2**31 - 1), entrances=(*READ, "fast"), said=TABLE),
    Case(name="table: footer of no bytes", make=_footer(0), entrances=(*READ, "fast"), said=TABLE),
    Case(name="table: encrypted footer", make=in_shard(_encrypted, TABLE), entrances=(*READ, "fast"), said=TABLE),
    Case(name="table: zeros", make=_zeros, entrances=(*READ, "fast"), said=TABLE),
    Case(name="table: no bytes", make=in_shard(lambda data: b"", TABLE), entrances=(*READ, "fast"), said=TABLE),
    Case(name="table: a tar", make=_tar, entrances=(*READ, "fast"), said=TABLE),
    Case(
        name="table: cut off in the middle",
        make=in_shard(lambda data: data[: len(data) // 2], TABLE),
        entrances=(*READ, "fast"),
        said=TABLE,
    ),
    Case(
        name="table: damaged in its pages",
        make=in_shard(lambda data: data[:4] + b"\xff" * 200 + data[204:], TABLE),
        entrances=READ,
        said=TABLE,
    ),
)
