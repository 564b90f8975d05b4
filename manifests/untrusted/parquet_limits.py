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

from manifests.support.counts import counted
from manifests.untrusted.thrift import BINARY, I32, I64, CompactReader, Form, Struct

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
_PAIR: Form = {1: BINARY, 2: BINARY}
_COLUMN: Form = {
    **{1: I32, 2: [I32], 3: [BINARY], 4: I32, 5: I64, 6: I64, 7: I64, 8: [_PAIR], 9: I64, 10: I64, 11: I64},
    **{13: [{}], 16: {2: [I64], 3: [I64]}, 17: {2: [I32]}},
}
_ELEMENT: Form = {1: I32, 2: I32, 3: I32, 4: BINARY, 5: I32}
_GROUP: Form = {1: [{1: BINARY, 3: _COLUMN}], 3: I64, 4: [{}]}
_FOOTER: Form = {1: I32, 2: [_ELEMENT], 3: I64, 4: [_GROUP], 5: [_PAIR], 7: [{}]}
_PAGE: Form = {
    **{1: I32, 2: I32, 3: I32, 5: {1: I32, 2: I32}, 7: {1: I32, 2: I32}},
    8: {1: I32, 2: I32, 3: I32, 4: I32, 5: I32, 6: I32},
}


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
        value = CompactReader(file.read(length), budget=MAX_FOOTER_VALUES).struct(_FOOTER)
        return _footer(value, end - 8 - length)
    except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"a damaged footer: {type(error).__name__} {error}") from error


def _footer(value: Struct, end: int) -> Footer:
    if 8 in value or 9 in value:
        raise ValueError("it is encrypted, or signed with a key")
    fields = _fields(value[2])
    columns = tuple(path[0].decode("utf-8") for path, _ in fields if len(path) == 1)
    leaves = [
        (path, len(path) == 1 and element.get(3) != _REPEATED) for path, element in fields if not element.get(5)
    ]
    if len(set(columns)) != len(columns):
        raise ValueError("a schema that names a column twice")
    chunks: dict[str, list[Chunk]] = {path[0].decode("utf-8"): [] for path, flat in leaves if flat}
    rows = 0
    for group in value[4]:
        # Arrow goes by position and looks at no path: what is bounded must be what it decodes.
        if [tuple(column[3][3]) for column in group[1]] != [path for path, _ in leaves]:
            raise ValueError("a row group whose columns are not those of the schema, in their order")
        for column, (path, flat) in zip(group[1], leaves, strict=True):
            if 1 in column or 8 in column:
                raise ValueError("a column in another file, or encrypted")
            if flat:
                chunks[path[0].decode("utf-8")].append(_chunk(column[3], end))
        rows += _count(group[3])
    if rows != _count(value[3]):
        raise ValueError(f"{counted(value[3], 'row')}, and {rows} in its row groups")
    for name, found in chunks.items():
        if sum(chunk.values for chunk in found) != rows:
            values = counted(sum(chunk.values for chunk in found), "value")
            raise ValueError(f"the column {name!a} has {values} of {counted(rows, 'row')}")
    metadata = {pair[1]: pair.get(2, b"") for pair in value.get(5, [])}
    return Footer(rows=rows, columns=columns, flat={k: tuple(v) for k, v in chunks.items()}, metadata=metadata)


def _fields(elements: list[Struct]) -> list[tuple[tuple[bytes, ...], Struct]]:
    """Every field of a schema, which is a tree written in a row: its path, and what is said of it."""
    if len(elements) > MAX_FIELDS:
        raise ValueError(f"{len(elements)} fields, expected at most {MAX_FIELDS}")
    fields: list[tuple[tuple[bytes, ...], Struct]] = []
    groups: list[tuple[bytes, ...]] = [()] * min(_count(elements[0][5]), MAX_FIELDS)  # that each field to come is in
    for element in elements[1:]:
        path = (*groups.pop(), element[4])
        children = _count(element.get(5, 0))
        if children > MAX_FIELDS or bool(children) == (1 in element):
            raise ValueError("a field that is neither a value nor a group of some")
        groups += [path] * children
        fields.append((path, element))
    if groups:
        raise ValueError("a schema that is no tree")
    return fields


def _chunk(said: Struct, end: int) -> Chunk:
    start = min(said[9], said.get(11) or said[9])
    length = _count(said[7])
    if not len(_MAGIC) <= start <= start + length <= end:
        raise ValueError(f"a column of {counted(length, 'byte')} at {start}, which the file does not hold")
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
                raise ValueError(f"pages of {counted(values, 'value')}, its footer says {chunk.values}")
            file.seek(at)
            head = file.read(min(MAX_HEADER_BYTES, end - at))
            reader = CompactReader(head, budget=1000)
            page = reader.struct(_PAGE)
            room, pages = room - _count(page[2]), pages - 1
            if room < 0 or pages < 0:
                raise ValueError("more pages, or of more bytes, than so many rows need")
            count = _values(page)
            if count == 0 and page[1] != _DICTIONARY:
                raise ValueError("an empty page")
            values += count if page[1] != _DICTIONARY else 0
            at += reader.at + _count(page[3])
        if values != chunk.values or at > end:
            size = counted(at - chunk.start, "byte")
            raise ValueError(f"pages of {counted(values, 'value')} in {size}, not what its footer says")


def _values(page: Struct) -> int:
    """How many values a page holds."""
    kinds = {_DATA: (5, 2), _DICTIONARY: (7, 2), _DATA_V2: (8, 4)}
    if page[1] not in kinds:
        raise ValueError(f"a page of kind {page[1]}")
    header, encoding = kinds[page[1]]
    if page[header][encoding] not in _ENCODINGS:
        raise ValueError(f"pages in encoding {page[header][encoding]}, expected plain or dictionary")
    return _count(page[header][1])
