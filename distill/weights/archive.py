"""Zip files as torch writes them: parts stored one behind another from the first byte on, then one directory."""

import struct
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

from distill.errors import DamagedError
from distill.weights.pickles import MAX_PICKLE_BYTES
from manifests.errors import TORN

MAX_PARTS = 50_000
"""Of a zip file: a tensor each, and a checkpoint of ResNet-1202 has 18,000."""
_MAX_DIRECTORY_BYTES = 200 * MAX_PARTS
_LOCAL_HEADER, _END, _LOCATOR, _END_64 = 30, 22, 20, 56
_OTHER = "get it again, or save it with torch.save"
UNREADABLE = (*TORN, zipfile.BadZipFile)
"""What reading a damaged file of torch's raises."""


class Place(NamedTuple):
    """Where bytes lie in a file."""

    start: int
    length: int


class Parts(NamedTuple):
    """What a zip file of torch's holds: its pickle, and where its storages lie, by their keys."""

    pickle: bytes
    storages: dict[str, Place]


def is_archive(path: Path) -> bool:
    """Whether torch takes a file for a zip, and not for one of its format before 1.6."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_parts(path: Path) -> Parts:
    """Look at every part of a zip file, and read its pickle. Storages are not read, nor their sums compared.

    Raises:
        DamagedError: it is not as torch writes it, so that another program may see other parts.
        zipfile.BadZipFile, KeyError: it is none of torch's.
    """
    with path.open("rb") as file:
        directory = _directory(path, file)
        with zipfile.ZipFile(file) as archive:
            places = _places(path, file, archive.infolist(), directory)
            root = archive.infolist()[0].filename.partition("/")[0]
            if places[f"{root}/data.pkl"].length > MAX_PICKLE_BYTES:
                raise DamagedError(
                    f"{path}: names and values of {places[f'{root}/data.pkl'].length} bytes, expected at most "
                    f"{MAX_PICKLE_BYTES}; save its state dict alone"
                )
            order = f"{root}/byteorder"
            if order in places and (places[order].length > 10 or archive.read(order) != b"little"):
                raise DamagedError(f"{path}: its numbers are not little-endian; save it on another machine")
            data = archive.read(f"{root}/data.pkl")
    prefix = f"{root}/data/"
    return Parts(data, {name.removeprefix(prefix): at for name, at in places.items() if name.startswith(prefix)})


def _directory(path: Path, file: IO[bytes]) -> int:
    """Where the one directory begins, which ends where its end record, the file's last bytes, begins."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_64 - _LOCATOR - _END))
    tail = file.read()
    count, length, start = struct.unpack("<HII", tail[-12:-2])
    records = _END
    if tail[-42:-38] == b"PK\x06\x07":
        records = _END_64 + _LOCATOR + _END
        count, length, start = struct.unpack("<QQQ", tail[32:56])
        (found,) = struct.unpack("<Q", tail[-34:-26])
        if len(tail) != records or tail[:4] != b"PK\x06\x06" or found != size - records:
            raise DamagedError(f"{path}: its directory is told of twice; {_OTHER}")
    if tail[-22:-18] != b"PK\x05\x06" or start + length != size - records:
        raise DamagedError(f"{path}: its directory is not where it says, so it may hold two; {_OTHER}")
    if count > MAX_PARTS:
        raise DamagedError(f"{path}: {count} parts, expected at most {MAX_PARTS}; {_OTHER}")
    if length > _MAX_DIRECTORY_BYTES:
        raise DamagedError(
            f"{path}: a directory of {length} bytes, expected at most {_MAX_DIRECTORY_BYTES}; {_OTHER}"
        )
    return start


def _places(path: Path, file: IO[bytes], parts: list[zipfile.ZipInfo], directory: int) -> dict[str, Place]:
    if len(parts) > MAX_PARTS:
        raise DamagedError(f"{path}: {len(parts)} parts, expected at most {MAX_PARTS}; {_OTHER}")
    parts = sorted(parts, key=lambda part: part.header_offset)
    if parts and parts[0].header_offset != 0:
        raise DamagedError(f"{path}: begins with what is no part of it; {_OTHER}")
    places = {}
    ends = [*(part.header_offset for part in parts[1:]), directory]
    for part, end in zip(parts, ends, strict=True):
        if part.compress_type != zipfile.ZIP_STORED or part.compress_size != part.file_size:
            raise DamagedError(f"{path}: its parts are compressed; save it again with torch.save")
        file.seek(part.header_offset)
        header = file.read(_LOCAL_HEADER)
        start = part.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
        if header[:4] != b"PK\x03\x04" or part.filename in places or start + part.file_size > end:
            raise DamagedError(f"{path}: its parts overlap, or are longer than the file; {_OTHER}")
        places[part.filename] = Place(start, part.file_size)
    return places


def require_sums(path: Path) -> None:
    """Compare the sums that a zip file holds of its parts, which torch does not.

    Raises:
        DamagedError: a part is not what was written.
    """
    if not is_archive(path):
        return
    with zipfile.ZipFile(path) as archive:
        try:
            broken = archive.testzip()
        except UNREADABLE as error:
            raise DamagedError(f"{path}: damaged, or no PyTorch file of tensors alone") from error
    if broken is not None:
        raise DamagedError(f"{path}: damaged: {broken[:100]!r} is not what was written; get it again")
