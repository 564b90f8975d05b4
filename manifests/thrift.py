"""Thrift's compact protocol, read: how Parquet writes its footer and the headers of its pages.

Source: Apache Thrift, ``doc/specs/thrift-compact-protocol.md``. Structs come as dicts from field number to value.
"""

import struct
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 16
_STOP, _TRUE, _FALSE, _STRUCT = 0, 1, 2, 12

Struct = dict[int, Any]


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
            4: self._integer,
            5: self._integer,
            6: self._integer,
            7: self._double,
            8: self._binary,
            9: self._list,
            10: self._list,
            11: self._map,
            _STRUCT: self.struct,
        }

    def struct(self) -> Struct:
        """The struct that begins here."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        value: Struct = {}
        number = 0
        while (head := self._byte()) != _STOP:
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else self._integer()
            if number in value:
                raise ValueError(f"field {number} stands twice")
            value[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        self._depth -= 1
        return value

    def _value(self, kind: int) -> Any:
        self._budget -= 1
        if self._budget < 0:
            raise ValueError("too many values")
        if kind not in self._readers:
            raise ValueError(f"unknown type {kind}")
        return self._readers[kind]()

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

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _double(self) -> float:
        value: float = struct.unpack_from("<d", self._data, self.at)[0]
        self.at += 8
        return value

    def _binary(self) -> bytes:
        length = self._varint()
        if length > len(self._data) - self.at:
            raise ValueError(f"{length} bytes where fewer are left")
        value = bytes(self._data[self.at : self.at + length])
        self.at += length
        return value

    def _list(self) -> list[Any]:
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        self._nest(count)
        value = [self._value(kind) for _ in range(count)]
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
