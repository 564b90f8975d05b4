"""Refuse compressed Arrow files, because Arrow allocates the size that a compressed buffer declares.

Hugging Face ``datasets`` writes its Arrow files without compression and maps them into memory.

Source: the Arrow format, ``Message.fbs``. The field numbers in the code are from this file.
"""

import struct
from pathlib import Path

import pyarrow as pa

_HEADER_TYPE, _HEADER = 1, 2  # fields of a message
_DICTIONARY, _BATCH = 2, 3  # types of a header
_DATA, _COMPRESSION = 1, 3  # fields of a dictionary and of a record batch


def require_plain_arrow(path: Path) -> None:
    """Raise ValueError if a stream of Arrow messages has a compressed buffer. Errors of Arrow are not converted."""
    with pa.memory_map(str(path)) as file:
        for message in pa.ipc.MessageReader.open_stream(file):
            try:
                compressed = _is_compressed(memoryview(message.metadata))
            except (struct.error, IndexError) as error:
                raise ValueError(f"{path.name} has a damaged message") from error
            if compressed:
                raise ValueError(f"{path.name} is compressed, expected Arrow data as datasets writes it")


def _is_compressed(data: memoryview) -> bool:
    root = struct.unpack_from("<I", data)[0]
    kind, header = _field(data, root, _HEADER_TYPE), _field(data, root, _HEADER)
    if kind is None or header is None or data[kind] not in (_DICTIONARY, _BATCH):
        return False
    batch = _table(data, header)
    if data[kind] == _DICTIONARY and (inner := _field(data, batch, _DATA)) is not None:
        batch = _table(data, inner)
    return _field(data, batch, _COMPRESSION) is not None


def _table(data: memoryview, at: int) -> int:
    """Return the position of the table to which the offset at byte ``at`` points."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Return the position of a field of a flatbuffers table; None if the table lacks the field."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    end, slot = struct.unpack_from("<H", data, vtable)[0], 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + slot)[0] if slot < end else 0
    return table + offset if offset else None
