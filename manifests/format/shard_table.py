"""Read and create the Parquet table of a shard: one row for each patch, in index order.

The six columns of ``CONTRACT`` are the first columns. Further columns contain the crop and other parameters.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import PatchSetError, corrupt, unreadable
from manifests.format.digest import DIGEST_BYTES
from manifests.support.counts import counted
from manifests.support.files import is_plain
from manifests.untrusted.parquet_limits import Footer, read_footer, require_bounded_pages

_TYPES = {
    **{"key": pa.string(), "index": pa.int64(), "offset": pa.int64(), "size": pa.int64()},
    **{"sha256": pa.binary(DIGEST_BYTES), "pixels": pa.binary(DIGEST_BYTES)},
}
CONTRACT = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _TYPES.items()])
MAX_KEY_LETTERS = 10
_BATCH_ROWS = 4096
METADATA_KEY = b"patchset"  # key of the file's metadata for the writer's own JSON record of the shard


def table(contract: dict[str, Any], parameters: dict[str, Any], record: bytes) -> pa.Table:
    """Return a shard's table. ``contract`` and ``parameters`` map names to values. ``record`` is JSON metadata."""
    columns = {field.name: pa.array(contract[field.name], type=field.type) for field in CONTRACT}
    columns |= {name: pa.array(values) for name, values in parameters.items()}
    fields = [*CONTRACT, *(pa.field(name, columns[name].type) for name in parameters)]
    return pa.table(columns, schema=pa.schema(fields, metadata={METADATA_KEY: record}))


def read_columns(path: Path, n: int, names: Sequence[str] = tuple(CONTRACT.names)) -> dict[str, pa.Array]:
    """Return a dict from column names to Arrow arrays. ``names`` are columns of ``CONTRACT``.

    Refuse a table that has not ``n`` rows or lacks a column of ``CONTRACT``. Refuse nulls and wrong types.
    """
    with _open_parquet(path) as file:
        footer = _read_footer(path, file, n)
        if list(footer.columns[: len(CONTRACT)]) != CONTRACT.names:
            found = [name[:40] for name in footer.columns[: len(CONTRACT)]]
            raise corrupt(path, f"its columns begin with {found}, expected the columns {CONTRACT.names}")
        if nested := next((name for name in names if name not in footer.flat), None):
            raise corrupt(path, f"the column {nested!r} has lists or groups, expected one value in each row")
        found_table = _decode(file, footer, names)
        return {name: _checked(path, CONTRACT.field(name), found_table.column(name)) for name in names}


def read_pixel_digests(path: Path, n: int) -> bytes:
    """Join the pixel digests of a table, 32 bytes for each of its ``n`` rows, in row order."""
    return raw_digests(read_columns(path, n, ("pixels",))["pixels"])


def read_places(path: Path, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the offset and the length in bytes of each patch in the tar of a shard: two arrays, int64 (n,)."""
    columns = read_columns(path, n, ("offset", "size"))
    return columns["offset"].to_numpy(), columns["size"].to_numpy()


def read_parameters(path: Path, n: int, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """Return the columns ``names`` of a table of ``n`` rows. Return None if a column is missing or not numeric."""
    with _open_parquet(path) as file:
        footer = _read_footer(path, file, n)
        if not set(names) <= footer.flat.keys():
            return None
        found = _decode(file, footer, names)
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    columns = {name: found.column(name) for name in names}
    if any(column.null_count or not any(is_of(column.type) for is_of in numeric) for column in columns.values()):
        return None
    return {name: column.to_pylist() for name, column in columns.items()}


def read_metadata(path: Path) -> bytes | None:
    """Return the JSON record in the metadata of a table. Return None if the table has no readable record."""
    try:
        with _open_parquet(path) as file:
            return read_footer(file).metadata.get(METADATA_KEY)
    except PatchSetError:
        return None


def count_rows(path: Path) -> int:
    """Return the number of rows that the footer of a table declares."""
    with _open_parquet(path) as file:
        return read_footer(file).rows


def iterate_rows(columns: Sequence[pa.Array]) -> Iterator[tuple[Any, ...]]:
    """Yield each row of ``columns`` as a tuple of Python values. Rows are converted in batches, to save memory."""
    for start in range(0, len(columns[0]), _BATCH_ROWS):
        yield from zip(*(column.slice(start, _BATCH_ROWS).to_pylist() for column in columns), strict=True)


def raw_digests(column: pa.Array) -> bytes:
    """Join all digests of a column to one bytes object."""
    # Buffer 1 of a fixed-size binary array holds the values; a slice starts at its offset.
    start = column.offset * DIGEST_BYTES
    values: bytes = column.buffers()[1][start : start + len(column) * DIGEST_BYTES].to_pybytes()
    return values


def _read_footer(path: Path, file: BinaryIO, n: int) -> Footer:
    footer = read_footer(file)
    if footer.rows != n:  # checked before decoding, because a footer may declare billions
        raise corrupt(path, f"the table has {counted(footer.rows, 'row')}, expected {n}")
    return footer


def _decode(file: BinaryIO, footer: Footer, names: Sequence[str]) -> pa.Table:
    """Decode the columns ``names`` in this thread. Arrow's threads sometimes abort a process when it exits."""
    require_bounded_pages(file, footer, names)
    # Keys keep their dictionary: all rows of a small file may be the same megabyte of text.
    reader = pq.ParquetFile(file, pre_buffer=False, read_dictionary=["key"])
    return reader.read(columns=list(names), use_threads=False)


def _checked(path: Path, field: pa.Field, column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array. Refuse a type that differs from ``field``, a null, and a key that is too long."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        for chunk in column.chunks:
            if any(text is not None and len(text) > MAX_KEY_LETTERS for text in chunk.dictionary.to_pylist()):
                raise corrupt(path, f"the column {field.name!r} has a text of more than {MAX_KEY_LETTERS} characters")
        kind = kind.value_type
    if kind != field.type or column.null_count:
        found = f"{kind} with {counted(column.null_count, 'null')}"
        raise corrupt(path, f"the column {field.name!r} is {found}, expected {field.type} without nulls")
    return column.cast(field.type).combine_chunks()


@contextlib.contextmanager
def _open_parquet(path: Path) -> Iterator[BinaryIO]:
    """Open a table as a file, because PyArrow opens only UTF-8 paths. Turn PyArrow's errors into PatchSetErrors."""
    if os.path.lexists(path) and not is_plain(path):
        what = "this is a folder, link or device, expected a regular file with the table of a shard"
        raise PatchSetError(f"{path}: {what}; download the set again or rebuild it")
    try:
        with path.open("rb") as file:
            yield file
    except PatchSetError:
        raise
    except PermissionError as error:
        raise unreadable(path, "the table", error, "") from error
    # A flipped bit in a footer may cause any of these errors.
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        raise corrupt(path, f"the table cannot be read as Parquet: {reason}") from error
