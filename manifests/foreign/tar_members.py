"""Any tar, from anybody: what its members are, found with bounded memory and time. A set's own are in ``tar``."""

import gzip
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from manifests.format.tar import BLOCK

GZIP_SUFFIXES = (".tar.gz", ".tgz")
TAR_SUFFIXES = (".tar", *GZIP_SUFFIXES)
MAX_MEMBERS = 300_000
"""What is kept of them takes about 1 KB each."""
MAX_HEADER_BYTES = 1 << 20
"""Of a member, with all that stands before it: long names, extended headers."""
MAX_UNZIPPED, MAX_RATIO = 1 << 30, 100
"""A compressed tar is unpacked no further than this, or so many times its own length."""


def is_gzip(path: Path) -> bool:
    """Whether a tar's name says that it is compressed, by gzip; nothing but the name is asked."""
    return path.name.lower().endswith(GZIP_SUFFIXES)


def open_tar(path: Path) -> BinaryIO:
    """The bytes of a tar, unpacked if its name says that it is compressed.

    Raises:
        OSError: it cannot be read.
    """
    return cast(BinaryIO, gzip.open(path)) if is_gzip(path) else path.open("rb")


def members_of(path: Path) -> list[tarfile.TarInfo]:
    """The members of a tar, which is read to its end marker; of their contents nothing.

    Readers take any end for the end, and a damaged header in the middle as well.

    Raises:
        tarfile.TarError, EOFError, OSError, zlib.error, ValueError: it is damaged, has no such end, is compressed
            where its name does not say so, or the other way; or has more members, longer headers or more bytes,
            unpacked, than anybody's.
    """
    members = []
    with open_tar(path) as file:
        headers = _Headers(file, _longest(path))
        with tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:") as archive:
            for member in archive:
                members.append(member)
                headers.room = MAX_HEADER_BYTES
                if len(members) > MAX_MEMBERS:
                    raise tarfile.ReadError(f"more than {MAX_MEMBERS} members")
            headers.seek(archive.offset)
            if headers.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError(f"{path.name} has no end marker behind its last whole member")
    return members


def _longest(path: Path) -> int | None:
    return max(MAX_UNZIPPED, MAX_RATIO * path.stat().st_size) if is_gzip(path) else None


class _Headers:
    """A tar of which headers alone are read: a few blocks for each member, whatever length it claims."""

    def __init__(self, file: BinaryIO, longest: int | None) -> None:
        self.room = MAX_HEADER_BYTES
        self._file, self._longest = file, longest

    def read(self, size: int) -> bytes:
        self.room -= size
        if self.room < 0:
            raise tarfile.ReadError(f"headers of more than {MAX_HEADER_BYTES} bytes before a member")
        return self._file.read(size)

    def seek(self, place: int) -> int:
        if self._longest is not None and place > self._longest:
            raise tarfile.ReadError(f"more than {self._longest} bytes, unpacked")
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()
