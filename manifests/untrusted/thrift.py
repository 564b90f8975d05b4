"""Read Thrift's compact protocol. Parquet uses this protocol for its footer and for the headers of its pages.

All readers must get the same values from the same bytes. Readers that Thrift's compiler generates ignore fields of
an unexpected type, truncate numbers, and ignore the declared item type of a list. This reader knows the expected
types. It refuses bytes that another reader could read differently.

Source: Apache Thrift, ``doc/specs/thrift-compact-protocol.md``.
"""

from collections.abc import Callable
from typing import Any

MAX_DEPTH = 16
I32, I64, BINARY = 5, 6, 8
_STOP, _TRUE, _FALSE, _BYTE, _I16, _LIST, _STRUCT = 0, 1, 2, 3, 4, 9, 12
_BITS = {_I16: 16, I32: 32, I64: 64}

Struct = dict[int, Any]  # values of a struct by field number
StructType = dict[int, Any]
"""Expected types of a struct by field number: a type, ``[type]`` for a list, or a dict for a struct.

A field without an expected type may have any type.
"""


class CompactReader:
    """A reader of at most ``budget`` values in ``data``. ``at`` is the position of the next byte."""

    def __init__(self, data: bytes, *, budget: int) -> None:
        self.at = 0
        self._data, self._budget, self._depth = data, budget, 0
        self._scalars: dict[int, Callable[[], Any]] = {
            _TRUE: lambda: self._byte() == _TRUE,
            _FALSE: lambda: self._byte() == _TRUE,
            _BYTE: self._byte,
            _I16: lambda: self._integer(_I16),
            I32: lambda: self._integer(I32),
            I64: lambda: self._integer(I64),
            BINARY: lambda: self._bytes(self._varint()),
        }

    def struct(self, fields: StructType) -> Struct:
        """Read the struct at byte ``at``. Return the values by field number. ``fields`` are the expected types."""
        self._enter()
        value: Struct = {}
        number = 0
        while (head := self._byte()) != _STOP:
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else self._integer(_I16)
            if number in value or number >= 1 << 15:
                raise ValueError(f"its metadata is corrupt (field {number} is repeated or too large)")
            expected = fields.get(number)
            if kind in (_TRUE, _FALSE) and expected is None:
                value[number] = kind == _TRUE
            else:
                value[number] = self._value(kind, expected)
        self._depth -= 1
        return value

    def _value(self, kind: int, expected: Any) -> Any:
        self._budget -= 1
        if self._budget < 0:
            raise ValueError("its metadata has too many values")
        if expected is not None:
            wanted = _STRUCT if isinstance(expected, dict) else _LIST if isinstance(expected, list) else expected
            if kind != wanted:
                raise ValueError(f"its metadata is corrupt (a value of type {kind}, expected {wanted})")
        if kind == _STRUCT:
            return self.struct(expected or {})
        if kind == _LIST:
            return self._list(expected[0] if expected else None)
        if kind not in self._scalars:
            raise ValueError(f"its metadata is corrupt (a value of the unknown type {kind})")
        return self._scalars[kind]()

    def _list(self, expected: Any) -> list[Any]:
        self._enter()
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        if count > self._budget:
            raise ValueError("its metadata is corrupt (a list is too long)")
        value = [self._value(head & 15, expected) for _ in range(count)]
        self._depth -= 1
        return value

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("its metadata is nested too deeply")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _bytes(self, length: int) -> bytes:
        if length > len(self._data) - self.at:
            raise ValueError(f"its metadata is corrupt (a text of {length} bytes is longer than the rest)")
        self.at += length
        return self._data[self.at - length : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its metadata is corrupt (a number of more than 64 bits)")

    def _integer(self, kind: int) -> int:
        value = self._varint()
        if value >> _BITS[kind]:
            raise ValueError(f"its metadata is corrupt (a number of more than {_BITS[kind]} bits)")
        return (value >> 1) ^ -(value & 1)
