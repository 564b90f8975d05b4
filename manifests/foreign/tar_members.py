"""List the members of an untrusted tar with bounded memory and time."""

import gzip
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from manifests.format.tar import BLOCK

GZIP_SUFFIXES = (".tar.gz", ".tgz")
TAR_SUFFIXES = (".tar", *GZIP_SUFFIXES)
MAX_MEMBERS = 300_000  # members of a tar, each of which takes about 1 KB of memory
MAX_HEADER_BYTES = 1 << 20  # bytes of the headers of one member: long names, extended headers
MAX_UNZIPPED, MAX_RATIO = 1 << 30, 100
"""Unpacked bytes of a compressed tar, or this multiple of its own length, whichever is more."""


def is_gzip(path: Path) -> bool:
    """Return whether a tar is compressed by gzip, according to its name."""
    return path.name.lower().endswith(GZIP_SUFFIXES)


def open_tar(path: Path) -> BinaryIO:
    """Open a tar for reading, unpacked if its name says that it is compressed."""
    return cast(BinaryIO, gzip.open(path)) if is_gzip(path) else path.open("rb")


def members_of(path: Path) -> list[tarfile.TarInfo]:
    """Return the members of a tar, whose headers are read up to the end marker, but no contents.

    The end marker is required, because ``tarfile`` also stops at the end of the file or at a damaged header.
    """
    members = []
    with open_tar(path) as file:
        longest = max(MAX_UNZIPPED, MAX_RATIO * path.stat().st_size) if is_gzip(path) else None
        headers = _Headers(file, longest)
        with tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:") as archive:
            for member in archive:
                members.append(member)
                headers.bytes_left = MAX_HEADER_BYTES
                if len(members) > MAX_MEMBERS:
                    raise tarfile.ReadError(f"more than {MAX_MEMBERS} members")
            headers.seek(archive.offset)
            if headers.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError(f"{path.name} has no end marker after its last whole member")
    return members


class _Headers:
    """A file for ``tarfile`` that bounds how many bytes of headers are read for each member."""

    def __init__(self, file: BinaryIO, longest: int | None) -> None:
        self.bytes_left = MAX_HEADER_BYTES
        self._file, self._longest = file, longest

    def read(self, size: int) -> bytes:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise tarfile.ReadError(f"headers of more than {MAX_HEADER_BYTES} bytes before a member")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        if self._longest is not None and offset > self._longest:
            raise tarfile.ReadError(f"more than {self._longest} bytes, unpacked")
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()
