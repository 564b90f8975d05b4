"""Check the sizes that a Parquet file declares before Arrow decodes a column of the file.

Arrow trusts a footer. It allocates the declared size of a page, repeats an entry of a dictionary a billion times, and
some metadata crashes the process. Therefore this module first checks the sizes in the footer and the page headers.

Source: the Parquet format, ``parquet.thrift``. The field numbers in the code are from this file.
"""

import dataclasses
import os
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

from manifests.support.counts import counted
from manifests.untrusted.thrift import BINARY, I32, I64, CompactReader, Struct, StructType

MAX_FOOTER_BYTES = 8 << 20
MAX_FOOTER_VALUES = 400_000
MAX_HEADER_BYTES = 64 << 10  # bytes of one page's header
MAX_COLUMN_BYTES, MAX_ROW_BYTES = 1 << 16, 64  # uncompressed bytes of a column, and additional bytes for each row
MAX_FIELDS = 1000
MAX_PAGES = 1000  # pages of a column; one more page is allowed for each hundred rows
_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_REPEATED = 2
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
# Plain, dictionaries and packed numbers. Encodings that repeat the previous text have no limit, so they are refused.
_ENCODINGS = frozenset({0, 2, 3, 4, 5, 8, 9})
_DAMAGE = (IndexError, KeyError, TypeError, AttributeError, struct.error)  # errors of damaged bytes
_PAIR: StructType = {1: BINARY, 2: BINARY}
_COLUMN: StructType = {
    **{1: I32, 2: [I32], 3: [BINARY], 4: I32, 5: I64, 6: I64, 7: I64, 8: [_PAIR], 9: I64, 10: I64, 11: I64},
    **{13: [{}], 16: {2: [I64], 3: [I64]}, 17: {2: [I32]}},
}
_ELEMENT: StructType = {1: I32, 2: I32, 3: I32, 4: BINARY, 5: I32}
_GROUP: StructType = {1: [{1: BINARY, 3: _COLUMN}], 3: I64, 4: [{}]}
_FOOTER: StructType = {1: I32, 2: [_ELEMENT], 3: I64, 4: [_GROUP], 5: [_PAIR], 7: [{}]}
_PAGE: StructType = {
    **{1: I32, 2: I32, 3: I32, 5: {1: I32, 2: I32}, 7: {1: I32, 2: I32}},
    8: {1: I32, 2: I32, 3: I32, 4: I32, 5: I32, 6: I32},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnChunk:
    """The pages of one column in one row group."""

    start: int  # position in the file in bytes
    length: int  # bytes
    values: int  # number of values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footer:
    """The content of a Parquet footer."""

    rows: int
    columns: tuple[str, ...]  # names of the top-level fields, in order
    flat: dict[str, tuple[ColumnChunk, ...]]  # chunks of each column that has one value in each row, such as "a.b"
    metadata: dict[bytes, bytes]


def read_footer(file: BinaryIO) -> Footer:
    """Read and check the footer of a Parquet file. Raise ValueError if the footer is damaged or too long."""
    end = os.fstat(file.fileno()).st_size
    if end < 12:
        raise ValueError(f"it has {end} bytes, expected at least 12")
    file.seek(end - 8)
    tail = file.read(8)
    length, most = int.from_bytes(tail[:4], "little"), min(end - 12, MAX_FOOTER_BYTES)
    if tail[4:] != _MAGIC:
        raise ValueError("it is encrypted" if tail[4:] == _ENCRYPTED else "its end is not that of a Parquet file")
    if length > most:
        raise ValueError(f"its footer has {length} bytes, expected at most {most}")
    file.seek(end - 8 - length)
    try:
        return _footer(CompactReader(file.read(length), budget=MAX_FOOTER_VALUES).struct(_FOOTER), end - 8 - length)
    except _DAMAGE as error:
        raise ValueError(f"its footer is damaged ({type(error).__name__} {error})") from error


def _footer(value: Struct, end: int) -> Footer:
    """Check a Thrift struct and convert it to a Footer. All pages must end before byte ``end`` of the file."""
    if 8 in value or 9 in value:
        raise ValueError("it is encrypted or signed")
    fields = _fields(value[2])
    columns = tuple(path[0].decode() for path, _ in fields if len(path) == 1)
    if len(set(columns)) != len(columns):
        raise ValueError("its schema has two columns with the same name")
    leaves = [(path, element) for path, element in fields if not element.get(5)]
    lists = {path for path, element in fields if element.get(3) == _REPEATED}
    names = [None if _is_below(path, lists) else b".".join(path).decode() for path, _ in leaves]
    if len(set(names) - {None}) != len([name for name in names if name is not None]):
        raise ValueError("its schema has two columns with the same name")
    flat: dict[str, list[ColumnChunk]] = {name: [] for name in names if name is not None}
    rows = 0
    for group in value[4]:
        # Arrow finds columns by position and ignores their paths, so the order must be the order of the schema.
        if [tuple(column[3][3]) for column in group[1]] != [path for path, _ in leaves]:
            raise ValueError("the columns of a row group differ from the columns of the schema")
        for column, name in zip(group[1], names, strict=True):
            if 1 in column or 8 in column:
                raise ValueError(f"a column is {'encrypted' if 8 in column else 'in another file'}")
            if name is not None:
                flat[name].append(_column_chunk(column[3], end))
        rows += _count(group[3])
    if rows != _count(value[3]):
        raise ValueError(f"its footer declares {counted(value[3], 'row')}, but its row groups have {rows}")
    for name, chunks in flat.items():
        if (values := sum(chunk.values for chunk in chunks)) != rows:
            raise ValueError(f"the column {name!a} has {counted(values, 'value')} for {counted(rows, 'row')}")
    metadata = {pair[1]: pair.get(2, b"") for pair in value.get(5, [])}
    return Footer(rows=rows, columns=columns, flat={k: tuple(v) for k, v in flat.items()}, metadata=metadata)


def _is_below(path: tuple[bytes, ...], lists: set[tuple[bytes, ...]]) -> bool:
    """Return whether a field, or a group that contains the field, is a list."""
    return any(path[: depth + 1] in lists for depth in range(len(path)))


def _fields(elements: list[Struct]) -> list[tuple[tuple[bytes, ...], Struct]]:
    """Return the path and the description of every field of a schema. ``elements`` is a tree in depth-first order."""
    if len(elements) > MAX_FIELDS:
        raise ValueError(f"its schema has {len(elements)} fields, expected at most {MAX_FIELDS}")
    fields: list[tuple[tuple[bytes, ...], Struct]] = []
    parents: list[tuple[bytes, ...]] = [()] * min(_count(elements[0][5]), MAX_FIELDS)  # of the next fields
    for element in elements[1:]:
        path = (*parents.pop(), element[4])
        children = _count(element.get(5, 0))
        if children > MAX_FIELDS or bool(children) == (1 in element):
            raise ValueError("a field of its schema is neither a value nor a group of fields")
        parents += [path] * children
        fields.append((path, element))
    if parents:
        raise ValueError("its schema declares more fields than it contains")
    return fields


def _column_chunk(column: Struct, end: int) -> ColumnChunk:
    start = min(column[9], column.get(11) or column[9])
    length = _count(column[7])
    if not len(_MAGIC) <= start <= start + length <= end:
        span = f"{counted(length, 'byte')} at offset {start}"
        raise ValueError(f"a column declares {span}, but the pages end at byte {end}")
    return ColumnChunk(start=start, length=length, values=_count(column[5]))


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"a count is {value!r}, expected a whole number from 0")
    return value


def require_bounded_pages(
    file: BinaryIO, footer: Footer, names: Iterable[str], *, page_bytes: int | None = None
) -> None:
    """Check page headers of the columns ``names``. Raise ValueError if they declare more data than rows can need.

    With ``page_bytes``, for columns of large values, the limit is a number of bytes for each page.
    """
    for name in names:
        try:
            _require_bounded_column(file, footer.flat[name], page_bytes)
        except _DAMAGE as error:
            raise ValueError(f"the column {name!a} has a damaged page ({type(error).__name__} {error})") from error
        except ValueError as error:
            raise ValueError(f"the column {name!a}: {error}") from error


def _require_bounded_column(file: BinaryIO, chunks: tuple[ColumnChunk, ...], page_bytes: int | None) -> None:
    rows = sum(chunk.values for chunk in chunks)
    bytes_left, pages_left = MAX_COLUMN_BYTES + MAX_ROW_BYTES * rows, MAX_PAGES + rows // 100
    if page_bytes is not None:
        bytes_left, pages_left = page_bytes * (rows + len(chunks)), rows + MAX_PAGES
    for chunk in chunks:
        values, at, end = 0, chunk.start, chunk.start + chunk.length
        bytes_left += 64  # each row group may have a small page
        while values < chunk.values:
            if at >= end:
                raise ValueError(f"the pages have {counted(values, 'value')}, the footer declares {chunk.values}")
            file.seek(at)
            reader = CompactReader(file.read(min(MAX_HEADER_BYTES, end - at)), budget=1000)
            page = reader.struct(_PAGE)
            bytes_left, pages_left = bytes_left - _count(page[2]), pages_left - 1
            if page_bytes is not None and page[2] > page_bytes:
                raise ValueError(f"a page has {counted(page[2], 'byte')}, expected at most {page_bytes}")
            if bytes_left < 0 or pages_left < 0:
                raise ValueError(f"the pages declare more data than {counted(rows, 'row')} can need")
            count = _values(page)
            if page[1] != _DICTIONARY:
                if count == 0:
                    raise ValueError("a page has no values")
                values += count
            at += reader.at + _count(page[3])
        if values != chunk.values or at > end:
            found = f"{counted(values, 'value')} in {counted(at - chunk.start, 'byte')}"
            raise ValueError(f"the pages have {found}, the footer declares {chunk.values} in {chunk.length} bytes")


def _values(page: Struct) -> int:
    fields = {_DATA: (5, 2), _DICTIONARY: (7, 2), _DATA_V2: (8, 4)}  # numbers of the header and of its encoding
    if page[1] not in fields:
        raise ValueError(f"a page has the unknown kind {page[1]}")
    header, encoding = fields[page[1]]
    if page[header][encoding] not in _ENCODINGS:
        raise ValueError(f"a page has the encoding {page[header][encoding]}, expected plain or dictionary")
    return _count(page[header][1])
