"""The Parquet file of a shard: one row per patch, in index order.

The six columns here are the contract. Columns after them are the writer's: the parameters it applied.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.digest import DIGEST_BYTES
from manifests.errors import PatchSetError
from manifests.files import is_plain

CONTRACT = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("pixels", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)
METADATA_KEY = b"patchset"
"""Key of the Parquet file metadata under which a writer keeps its own JSON record of the shard."""


def read_pixel_digests(path: Path) -> bytes:
    """The raw pixel digests of a shard's patches, 32 bytes each, in row order.

    Raises:
        PatchSetError: the file is not Parquet, or has no such column.
    """
    return _read_raw(path, ["pixels"])[0]


def read_digests(path: Path, n: int) -> tuple[bytes, bytes]:
    """The raw digests of the encoded bytes and of the pixels of a table of ``n`` rows, 32 bytes each.

    Raises:
        PatchSetError: the file is not Parquet, has another number of rows, or lacks a column.
    """
    if (rows := count_rows(path)) != n:
        raise PatchSetError(f"{path}: {rows} rows, expected {n}")
    encoded, pixels = _read_raw(path, ["sha256", "pixels"])
    return encoded, pixels


def read_places(path: Path, n: int) -> list[tuple[int, int]]:
    """Offset and length in bytes of every patch in the tar beside a table of ``n`` rows.

    Raises:
        PatchSetError: as ``read_contract``.
    """
    columns = read_contract(path, n, ("offset", "size"))
    return list(zip(columns["offset"], columns["size"], strict=True))


def _read_raw(path: Path, names: list[str]) -> list[bytes]:
    with _reading(path) as file:
        table = _columns(file, names)
        columns = [table.column(name).combine_chunks() for name in names]
    return [_values(path, name, column) for name, column in zip(names, columns, strict=True)]


def _columns(file: BinaryIO, names: Sequence[str]) -> pa.Table:
    """Columns of a table, read by this thread alone: Arrow's own threads now and then abort a process that ends."""
    return pq.ParquetFile(file, pre_buffer=False).read(columns=list(names), use_threads=False)


def _values(path: Path, name: str, column: Any) -> bytes:
    if column.type != pa.binary(DIGEST_BYTES) or column.null_count:
        raise PatchSetError(f"{path}: the column {name!r} is {column.type}, expected 32-byte digests")
    # Buffer 1 of a fixed-size binary array holds the values; a slice starts at its offset.
    start = column.offset * DIGEST_BYTES
    values: bytes = column.buffers()[1][start : start + len(column) * DIGEST_BYTES].to_pybytes()
    return values


def count_rows(path: Path) -> int:
    """How many rows a table says it has, from its footer.

    Raises:
        PatchSetError: the file is not Parquet.
    """
    with _reading(path) as file:
        count: int = pq.read_metadata(file).num_rows
    return count


def read_contract(path: Path, n: int, names: Sequence[str] = tuple(CONTRACT.names)) -> dict[str, list[Any]]:
    """The contract columns ``names`` of a table of ``n`` rows, as lists.

    Raises:
        PatchSetError: the file is not Parquet, has another number of rows, or a column missing or of another type.
    """
    if (rows := count_rows(path)) != n:  # before anything is decoded: a footer may promise billions
        raise PatchSetError(f"{path}: {rows} rows, expected {n}")
    with _reading(path) as file:
        schema = pq.read_schema(file)
        table = _columns(file, names)
    if schema.names[: len(CONTRACT)] != CONTRACT.names:
        raise PatchSetError(f"{path}: its columns begin {schema.names[:6]}, expected {CONTRACT.names}")
    for field in map(CONTRACT.field, names):
        column = table.column(field.name)
        if column.type != field.type or column.null_count:
            raise PatchSetError(
                f"{path}: the column {field.name!r} is {column.type}, expected {field.type}, none null"
            )
    return {name: table.column(name).to_pylist() for name in names}


def read_parameters(path: Path, n: int, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """The writer's numeric columns ``names`` of a table of ``n`` rows; None where one is missing, or has no numbers.

    Raises:
        PatchSetError: the file is not Parquet, or has another number of rows.
    """
    if (rows := count_rows(path)) != n:
        raise PatchSetError(f"{path}: {rows} rows, expected {n}")
    with _reading(path) as file:
        if not set(names) <= set(pq.read_schema(file).names):
            return None
        table = _columns(file, names)
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    columns = {name: table.column(name) for name in names}
    if any(column.null_count or not any(is_of(column.type) for is_of in numeric) for column in columns.values()):
        return None
    return {name: column.to_pylist() for name, column in columns.items()}


def read_metadata(path: Path) -> bytes | None:
    """The writer's JSON record in a Parquet file, or None when the file is unreadable or has none."""
    if not path.is_file():
        return None
    try:
        with _reading(path) as file:
            metadata: dict[bytes, bytes] | None = pq.read_schema(file).metadata
    except PatchSetError:
        return None
    return (metadata or {}).get(METADATA_KEY)


def table(contract: dict[str, Any], parameters: dict[str, Any], record: bytes) -> pa.Table:
    """A shard's table: the six contract columns, the writer's ``parameters``, and its ``record``."""
    columns = {field.name: pa.array(contract[field.name], type=field.type) for field in CONTRACT}
    columns |= {name: pa.array(values) for name, values in parameters.items()}
    fields = [*CONTRACT, *(pa.field(name, columns[name].type) for name in parameters)]
    return pa.table(columns, schema=pa.schema(fields, metadata={METADATA_KEY: record}))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """The open file, for PyArrow, which takes no name that is not UTF-8 and raises all sorts of errors.

    Raises:
        PatchSetError: instead of whatever the block raises over a damaged file.
    """
    if path.exists() and not is_plain(path):
        raise PatchSetError(f"{path}: is no regular file, expected one, and no link")
    try:
        with path.open("rb") as file:
            yield file
    # A flipped bit in a footer shows as Arrow's errors, text that is no UTF-8, a size that no memory holds.
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PatchSetError(f"{path}: cannot be read as Parquet: {reason}; rebuild the shard") from error
