"""The Parquet file of a shard: one row per patch, in index order.

The six columns here are the contract. Columns after them are the writer's: the parameters it applied.
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

from manifests.errors import PatchSetError
from manifests.format.digest import DIGEST_BYTES
from manifests.support.counts import counted
from manifests.support.files import is_plain
from manifests.untrusted.parquet_limits import Footer, read_footer, require_modest

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
MAX_KEY_LETTERS = 10
_STEP = 4096
METADATA_KEY = b"patchset"
"""Key of the Parquet file metadata under which a writer keeps its own JSON record of the shard."""


def read_pixel_digests(path: Path, n: int) -> bytes:
    """The raw pixel digests of the ``n`` patches of a shard, 32 bytes each, in row order.

    Raises:
        PatchSetError: the file is not Parquet, has another number of rows, or has no such column.
    """
    return _read_raw(path, n, ("pixels",))[0]


def read_digests(path: Path, n: int) -> tuple[bytes, bytes]:
    """The raw digests of the encoded bytes and of the pixels of a table of ``n`` rows, 32 bytes each.

    Raises:
        PatchSetError: the file is not Parquet, has another number of rows, or lacks a column.
    """
    encoded, pixels = _read_raw(path, n, ("sha256", "pixels"))
    return encoded, pixels


def read_places(path: Path, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offset and length in bytes of every patch in the tar beside a table of ``n`` rows: int64 (n,) each.

    Raises:
        PatchSetError: as ``read_contract``.
    """
    offsets, sizes = (column.to_numpy() for column in _contract_columns(path, n, ("offset", "size")))
    return offsets, sizes


def count_rows(path: Path) -> int:
    """How many rows a table says it has, from its footer.

    Raises:
        PatchSetError: the file is not Parquet.
    """
    with _reading(path) as file:
        return read_footer(file).rows


def read_contract(path: Path, n: int, names: Sequence[str] = tuple(CONTRACT.names)) -> dict[str, list[Any]]:
    """The contract columns ``names`` of a table of ``n`` rows, as lists.

    Raises:
        PatchSetError: the file is not Parquet, has another number of rows, or a column missing or of another type.
    """
    return {name: column.to_pylist() for name, column in read_columns(path, n, names).items()}


def read_columns(path: Path, n: int, names: Sequence[str] = tuple(CONTRACT.names)) -> dict[str, pa.Array]:
    """As ``read_contract``, in a third of the memory.

    Raises:
        PatchSetError: as there.
    """
    return dict(zip(names, _contract_columns(path, n, names), strict=True))


def in_turn(columns: Sequence[pa.Array]) -> Iterator[tuple[Any, ...]]:
    """The rows of columns, of which some thousand at a time become Python's objects."""
    for start in range(0, len(columns[0]), _STEP):
        yield from zip(*(column.slice(start, _STEP).to_pylist() for column in columns), strict=True)


def read_parameters(path: Path, n: int, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """The writer's numeric columns ``names`` of a table of ``n`` rows; None where one is missing, or has no numbers.

    Raises:
        PatchSetError: the file is not Parquet, or has another number of rows.
    """
    with _reading(path) as file:
        footer = _footer_of(path, file, n)
        if not set(names) <= footer.flat.keys():
            return None
        table = _columns(file, footer, names)
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
            return read_footer(file).metadata.get(METADATA_KEY)
    except PatchSetError:
        return None


def _footer_of(path: Path, file: BinaryIO, n: int) -> Footer:
    footer = read_footer(file)
    if footer.rows != n:  # before anything is decoded: a footer may promise billions
        raise PatchSetError(f"{path}: {counted(footer.rows, 'row')}, expected {n}")
    return footer


def _columns(file: BinaryIO, footer: Footer, names: Sequence[str]) -> pa.Table:
    """Columns of a table, read by this thread alone: Arrow's own threads now and then abort a process that ends."""
    require_modest(file, footer, names)
    # Texts stay with the dictionary they came in: the rows of a small file may all be the same megabyte of text.
    reader = pq.ParquetFile(file, pre_buffer=False, read_dictionary=["key"])
    return reader.read(columns=list(names), use_threads=False)


def _contract_columns(path: Path, n: int, names: Sequence[str]) -> list[pa.Array]:
    """The contract columns ``names``, each of its type and none with a null."""
    with _reading(path) as file:
        footer = _footer_of(path, file, n)
        if list(footer.columns[: len(CONTRACT)]) != CONTRACT.names:
            found = [name[:40] for name in footer.columns[: len(CONTRACT)]]
            raise PatchSetError(f"{path}: its columns begin {found}, expected {CONTRACT.names}")
        if nested := next((name for name in names if name not in footer.flat), None):
            raise PatchSetError(f"{path}: the column {nested!r} is not one value a row")
        table = _columns(file, footer, names)
        return [_checked(path, CONTRACT.field(name), table.column(name)) for name in names]


def _checked(path: Path, field: pa.Field, column: pa.ChunkedArray) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        for chunk in column.chunks:
            if any(text is not None and len(text) > MAX_KEY_LETTERS for text in chunk.dictionary.to_pylist()):
                raise PatchSetError(f"{path}: the column {field.name!r} has longer texts than a key")
        kind = kind.value_type
    if kind != field.type or column.null_count:
        raise PatchSetError(f"{path}: the column {field.name!r} is {kind}, expected {field.type}, none null")
    return column.cast(field.type).combine_chunks()


def _read_raw(path: Path, n: int, names: Sequence[str]) -> list[bytes]:
    """The values of columns of digests, one after the other."""
    return [raw_digests(column) for column in _contract_columns(path, n, names)]


def raw_digests(column: pa.Array) -> bytes:
    """The values of a column of digests, one after the other."""
    # Buffer 1 of a fixed-size binary array holds the values; a slice starts at its offset.
    start = column.offset * DIGEST_BYTES
    values: bytes = column.buffers()[1][start : start + len(column) * DIGEST_BYTES].to_pybytes()
    return values


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
    if os.path.lexists(path) and not is_plain(path):
        raise PatchSetError(f"{path}: is no regular file, expected one, and no link")
    try:
        with path.open("rb") as file:
            yield file
    # A flipped bit in a footer shows as Arrow's errors, text that is no UTF-8, a size that no memory holds.
    except PatchSetError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PatchSetError(f"{path}: cannot be read as Parquet: {reason}; rebuild the shard") from error
