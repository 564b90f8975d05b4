"""Thrift's compact protocol, read: how Parquet writes its footer and the headers of its pages.

Readers of one form must understand the same bytes alike. Those that Thrift generates pass over a field of another
type than they know, cut numbers to the bits of their type, and never look at what type the items of a list are said
to have. So whoever reads here says what form he expects, and whatever another reader may take otherwise is refused.

Source: Apache Thrift, ``doc/specs/thrift-compact-protocol.md``. Structs come as dicts from field number to value.
"""

import struct
from collections.abc import Callable
from typing import Any

from manifests.support.counts import counted

MAX_DEPTH = 16
I32, I64, BINARY = 5, 6, 8
_STOP, _TRUE, _FALSE, _I16, _LIST, _STRUCT = 0, 1, 2, 4, 9, 12
_BITS = {_I16: 16, I32: 32, I64: 64}

Struct = dict[int, Any]
Form = dict[int, Any]
"""Of a struct, by field number: a type, ``[type]`` of a list, or a form. Fields that it lacks may be anything."""


class CompactReader:
    """Values out of ``data``, from ``at`` on, at most ``budget`` of them.

    Raises:
        ValueError, IndexError, struct.error: the bytes are no such values, or too many or too deep.
    """

    def __init__(self, data: bytes | memoryview, at: int = 0, *, budget: int) -> None:
        self.at = at
        self._data, self._budget, self._depth = data, budget, 0
        self._readers: dict[int, Callable[[], Any]] = {
            _TRUE: self._boolean,
            _FALSE: self._boolean,
            3: self._byte,
            _I16: lambda: self._integer(_I16),
            I32: lambda: self._integer(I32),
            I64: lambda: self._integer(I64),
            7: self._double,
            BINARY: self._binary,
            _LIST: self._list,
            10: self._list,
            11: self._map,
            _STRUCT: self.struct,
        }

    def struct(self, form: Form | None = None) -> Struct:
        """The struct that begins here, of the given form."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        value: Struct = {}
        number = 0
        while (head := self._byte()) != _STOP:
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else self._integer(_I16)
            if number in value or number >= 1 << 15:
                raise ValueError(f"field {number} stands twice, or is too far")
            expected = form.get(number) if form else None
            if kind in (_TRUE, _FALSE) and expected is None:
                value[number] = kind == _TRUE
            else:
                value[number] = self._value(kind, expected)
        self._depth -= 1
        return value

    def _value(self, kind: int, expected: Any = None) -> Any:
        self._budget -= 1
        if self._budget < 0:
            raise ValueError("too many values")
        if kind not in self._readers:
            raise ValueError(f"unknown type {kind}")
        if expected is None:
            return self._readers[kind]()
        kinds: dict[type, int] = {dict: _STRUCT, list: _LIST}
        wanted = kinds.get(type(expected), expected)
        if kind != wanted:
            raise ValueError(f"a value of type {kind}, expected {wanted}")
        if wanted == _STRUCT:
            return self.struct(expected)
        return self._list(expected[0]) if wanted == _LIST else self._readers[kind]()

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _boolean(self) -> bool:
        return self._byte() == _TRUE

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _integer(self, kind: int) -> int:
        value = self._varint()
        if value >> _BITS[kind]:
            raise ValueError(f"a number of more than {_BITS[kind]} bits")
        return (value >> 1) ^ -(value & 1)

    def _double(self) -> float:
        value: float = struct.unpack_from("<d", self._data, self.at)[0]
        self.at += 8
        return value

    def _binary(self) -> bytes:
        length = self._varint()
        if length > len(self._data) - self.at:
            raise ValueError(f"{counted(length, 'byte')} where fewer are left")
        value = bytes(self._data[self.at : self.at + length])
        self.at += length
        return value

    def _list(self, expected: Any = None) -> list[Any]:
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        self._nest(count)
        value = [self._value(kind, expected) for _ in range(count)]
        self._depth -= 1
        return value

    def _map(self) -> list[tuple[Any, Any]]:
        count = self._varint()
        self._nest(count)
        kinds = self._byte() if count else 0
        value = [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
        self._depth -= 1
        return value

    def _nest(self, count: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH or count > self._budget:
            raise ValueError("nested too deeply, or too many values")
