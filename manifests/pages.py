"""What a Parquet file says of itself, read and bounded before Arrow decodes a column of it.

Arrow takes what a footer says on trust: it allocates what a page claims to hold, repeats a dictionary's entry
a billion times, and some metadata ends the process. So the footer and the headers of the pages are read here first.

Source: the Parquet format, ``parquet.thrift``; the numbers below are its fields'.
"""

import dataclasses
import os
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

from manifests.thrift import CompactReader, Struct

MAX_FOOTER_BYTES = 8 << 20
MAX_FOOTER_VALUES = 400_000
MAX_HEADER_BYTES = 64 << 10
MAX_COLUMN_BYTES = 1 << 16
"""Of a column's pages in all, uncompressed: this, and so many for each row (a digest has 32, a key 9)."""
MAX_ROW_BYTES = 64
MAX_FIELDS = 1000
MAX_PAGES = 1000
"""Of a column, and one more for each hundred rows."""
_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_REPEATED = 2
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_ENCODINGS = frozenset({0, 2, 3, 4, 5, 8, 9})
"""Plain, dictionaries and numbers packed: not those that build a text out of the one before it, without end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """A column in a row group: where its pages begin and how many bytes they take."""

    start: int
    length: int
    values: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footer:
    """``columns``: the names of the topmost fields, in order. ``flat``: those of a value a row, and their chunks."""

    rows: int
    columns: tuple[str, ...]
    flat: dict[str, tuple[Chunk, ...]]
    metadata: dict[bytes, bytes]


def read_footer(file: BinaryIO) -> Footer:
    """The footer of an open Parquet file.

    Raises:
        ValueError: there is none, it is encrypted, larger than anybody's, or contradicts itself.
    """
    end = os.fstat(file.fileno()).st_size
    if end < 12:
        raise ValueError(f"{end} bytes are no Parquet file")
    file.seek(end - 8)
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC:
        raise ValueError("it is encrypted" if tail[4:] == _ENCRYPTED else "it does not end as a Parquet file")
    if length > min(end - 12, MAX_FOOTER_BYTES):
        raise ValueError(f"a footer of {length} bytes, expected at most {min(end - 12, MAX_FOOTER_BYTES)}")
    file.seek(end - 8 - length)
    try:
        value = CompactReader(file.read(length), budget=MAX_FOOTER_VALUES).struct()
        return _footer(value, end - 8 - length)
    except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"a damaged footer: {type(error).__name__} {error}") from error


def _footer(value: Struct, end: int) -> Footer:
    columns, leaves = _fields(value[2])
    chunks: dict[str, list[Chunk]] = {name: [] for name in leaves}
    rows = 0
    for group in value[4]:
        if len(group[1]) < len(leaves):
            raise ValueError("a row group that lacks a column")
        for column in group[1]:
            if 1 in column or 8 in column:
                raise ValueError("a column in another file, or encrypted")
            said = column[3]
            path = b".".join(said[3]).decode("utf-8")
            if path in chunks:
                chunks[path].append(_chunk(said, end))
        rows += _count(group[3])
    if rows != _count(value[3]):
        raise ValueError(f"{value[3]} rows, and {rows} in its row groups")
    for name, found in chunks.items():
        if len(found) != len(value[4]) or sum(chunk.values for chunk in found) != rows:
            raise ValueError(f"the column {name!a} has {sum(chunk.values for chunk in found)} values of {rows} rows")
    metadata = {pair[1]: pair.get(2, b"") for pair in value.get(5, [])}
    return Footer(rows=rows, columns=columns, flat={k: tuple(v) for k, v in chunks.items()}, metadata=metadata)


def _fields(elements: list[Struct]) -> tuple[tuple[str, ...], list[str]]:
    """Names of the topmost fields of a schema, which is a tree written in a row, and of those without children."""
    if len(elements) > MAX_FIELDS:
        raise ValueError(f"{len(elements)} fields, expected at most {MAX_FIELDS}")
    names: list[str] = []
    flat: list[str] = []
    at = 1
    for _ in range(_count(elements[0][5])):
        element = elements[at]
        name = element[4].decode("utf-8")
        names.append(name)
        if not element.get(5) and element.get(3) != _REPEATED:
            flat.append(name)
        at = _skip(elements, at)
    if at != len(elements) or len(set(names)) != len(names):
        raise ValueError("a schema that is no tree, or names a column twice")
    return tuple(names), flat


def _skip(elements: list[Struct], at: int) -> int:
    """The position behind a field and all that is in it."""
    open_fields = 1
    while open_fields:
        open_fields += _count(elements[at].get(5, 0)) - 1
        at += 1
    return at


def _chunk(said: Struct, end: int) -> Chunk:
    start = min(said[9], said.get(11) or said[9])
    length = _count(said[7])
    if not len(_MAGIC) <= start <= start + length <= end:
        raise ValueError(f"a column of {length} bytes at {start}, which the file does not hold")
    return Chunk(start=start, length=length, values=_count(said[5]))


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"a count of {value!r}")
    return value


def require_modest(file: BinaryIO, footer: Footer, names: Iterable[str]) -> None:
    """Check that columns decode to about what so many rows of numbers and digests take, whatever a page claims.

    Raises:
        ValueError: a page claims more, or another number of values; or is packed in a way that hides how many.
    """
    for name in names:
        try:
            _require_column(file, footer.flat[name])
        except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise ValueError(f"the column {name!a} has a damaged page: {type(error).__name__} {error}") from error
        except ValueError as error:
            raise ValueError(f"the column {name!a} has {error}") from error


def _require_column(file: BinaryIO, chunks: tuple[Chunk, ...]) -> None:
    rows = sum(chunk.values for chunk in chunks)
    room, pages = MAX_COLUMN_BYTES + MAX_ROW_BYTES * rows, MAX_PAGES + rows // 100
    for chunk in chunks:
        values, at, end = 0, chunk.start, chunk.start + chunk.length
        room += 64  # of a small page for each row group
        while values < chunk.values:
            if at >= end:
                raise ValueError(f"pages of {values} values, its footer says {chunk.values}")
            file.seek(at)
            head = file.read(min(MAX_HEADER_BYTES, end - at))
            reader = CompactReader(head, budget=1000)
            page = reader.struct()
            room, pages = room - _count(page[2]), pages - 1
            if room < 0 or pages < 0:
                raise ValueError("more pages, or of more bytes, than so many rows need")
            count = _values(page)
            if count == 0 and page[1] != _DICTIONARY:
                raise ValueError("an empty page")
            values += count if page[1] != _DICTIONARY else 0
            at += reader.at + _count(page[3])
        if values != chunk.values or at > end:
            raise ValueError(f"pages of {values} values in {at - chunk.start} bytes, not what its footer says")


def _values(page: Struct) -> int:
    """How many values a page holds."""
    kinds = {_DATA: (5, 2), _DICTIONARY: (7, 2), _DATA_V2: (8, 4)}
    if page[1] not in kinds:
        raise ValueError(f"a page of kind {page[1]}")
    header, encoding = kinds[page[1]]
    if page[header][encoding] not in _ENCODINGS:
        raise ValueError(f"pages in encoding {page[header][encoding]}, expected plain or dictionary")
    return _count(page[header][1])
