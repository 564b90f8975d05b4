"""Test that tables with false footers or pages are refused before Arrow decodes them.

Tables of many writers are accepted.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import PatchSetError
from manifests.format import shard_table
from manifests.untrusted.parquet_limits import MAX_FIELDS, read_footer, require_bounded_pages
from manifests.untrusted.thrift import I32, I64, CompactReader

N = 300


def contract(n: int = N) -> dict[str, Any]:
    digests = [bytes([i % 256]) * 32 for i in range(n)]
    numbers = {name: list(range(n)) for name in ("index", "offset", "size")}
    return {"key": [f"{i:09d}" for i in range(n)], **numbers, "sha256": digests, "pixels": digests}


def write(path: Path, table: pa.Table | None = None, **options: Any) -> Path:
    parameters = {"angle": [0.5] * N, "flip": [True] * N}
    pq.write_table(shard_table.table(contract(), parameters, b"{}") if table is None else table, path, **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "none"},
        {"compression": "gzip", "data_page_version": "2.0"},
        {"use_dictionary": False},
        {"row_group_size": 7, "data_page_size": 100},
        {"write_page_index": True, "write_statistics": False},
        {"version": "1.0", "column_encoding": {"index": "DELTA_BINARY_PACKED"}, "use_dictionary": ["key"]},
    ],
)
def test_tables_of_many_writers(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write(tmp_path / "t.parquet", **options)
    columns = shard_table.read_columns(path, N)
    assert {name: column.to_pylist() for name, column in columns.items()} == contract()
    assert shard_table.read_pixel_digests(path, N) == b"".join(contract()["pixels"])
    assert shard_table.read_parameters(path, N, ("angle", "flip")) == {"angle": [0.5] * N, "flip": [True] * N}
    assert shard_table.read_parameters(path, N, ("other",)) is None
    assert shard_table.read_metadata(path) == b"{}"
    assert shard_table.count_rows(path) == N
    with path.open("rb") as file:
        footer = read_footer(file)
        require_bounded_pages(file, footer, footer.columns)


def refuse(path: Path, part: str, n: int = N) -> None:
    with pytest.raises(PatchSetError, match=part) as caught:
        shard_table.read_columns(path, n)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_text_repeated_in_every_row(tmp_path: Path) -> None:
    keys = pa.DictionaryArray.from_arrays(pa.array([0] * N, pa.int32()), pa.array(["x" * 10_000]))
    base = shard_table.table(contract(), {}, b"{}")
    table = base.set_column(0, pa.field("key", keys.type, nullable=False), keys)
    refuse(write(tmp_path / "t.parquet", table=table), "a text of more than 10 characters")
    keys = pa.DictionaryArray.from_arrays(pa.array([0] * N, pa.int32()), pa.array(["x" * 10_000_000]))
    table = base.set_column(0, pa.field("key", keys.type, nullable=False), keys)
    refuse(write(tmp_path / "t.parquet", table=table), "more data than")


def test_texts_built_one_out_of_the_other(tmp_path: Path) -> None:
    options = {"use_dictionary": False, "column_encoding": {"key": "DELTA_BYTE_ARRAY"}}
    refuse(write(tmp_path / "t.parquet", **options), "encoding 7")


def test_pages_without_end(tmp_path: Path) -> None:
    n = 3000
    refuse(write(tmp_path / "t.parquet", shard_table.table(contract(n), {}, b""), row_group_size=3), "more data", n)


def test_more_fields_than_anybody_has(tmp_path: Path) -> None:
    more = {f"c{i}": [0] * N for i in range(MAX_FIELDS)}
    refuse(write(tmp_path / "t.parquet", table=shard_table.table(contract(), more, b"")), "fields")


def test_nested_and_missing_columns(tmp_path: Path) -> None:
    base = shard_table.table(contract(), {}, b"")
    lists = pa.array([[i] for i in range(N)])
    nested = base.set_column(2, "offset", lists)
    refuse(write(tmp_path / "t.parquet", table=nested), "expected one value in each row")
    refuse(write(tmp_path / "t.parquet", table=base.drop_columns(["pixels"])), "its columns begin with")
    nulls = base.set_column(2, "offset", pa.array([None] * N, pa.int64()))
    refuse(write(tmp_path / "t.parquet", table=nulls), "without nulls")
    texts = base.set_column(1, "index", pa.array(["1"] * N))
    refuse(write(tmp_path / "t.parquet", table=texts), "expected int64")
    refuse(write(tmp_path / "t.parquet"), "300 rows, expected 301", N + 1)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data[:-8] + (1 << 31).to_bytes(4, "little") + b"PAR1", "footer has 2147483648 bytes"),
        (lambda data: data[:-4] + b"PARE", "encrypted"),
        (lambda data: data[:-4] + b"PAR2", "its end is not that of"),
        (lambda data: data[:-8] + bytes(4) + b"PAR1", "its footer is damaged"),
        (lambda data: b"PAR1", "expected at least 12"),
        (lambda data: b"", "expected at least 12"),
    ],
)
def test_broken_footers(tmp_path: Path, change: Any, part: str) -> None:
    path = write(tmp_path / "t.parquet")
    path.write_bytes(change(path.read_bytes()))
    refuse(path, part)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"\x25\x02\x00", "of type 5, expected 6"),  # field 2 as i32: Arrow skips the field
        (b"\x15\x80\x80\x80\x80\x20\x00", "more than 32 bits"),  # Arrow keeps the lower bits
        (b"\x39\x18\x01\x02\x00", "of type 8, expected 5"),  # a list that declares texts: Arrow reads numbers
        (b"\x06\x82\x80\x08\x00\x00", "more than 16 bits"),  # field 65,537: Arrow reads field 1
    ],
)
def test_bytes_that_readers_of_thrift_read_differently(data: bytes, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        CompactReader(data, budget=10).struct({1: I32, 2: I64, 3: [I32]})


def test_every_flipped_byte_of_a_footer_is_refused_or_read(tmp_path: Path) -> None:
    """A footer with one changed byte is refused in one line, or read.

    No changed byte may crash the process or raise another error.
    """
    path = write(tmp_path / "t.parquet", table=shard_table.table(contract(20), {}, b""))
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for at in range(start, len(whole)):
        data = bytearray(whole)
        data[at] ^= 0x55
        path.write_bytes(data)
        try:
            shard_table.read_columns(path, 20)
        except PatchSetError as error:
            refused += "\n" not in str(error)
    assert refused > 100
