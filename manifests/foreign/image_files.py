"""Read one image from a file, a member of an untrusted tar, a record of a CIFAR file, or a row of a table."""

import dataclasses
import functools
import gzip
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, cast

from manifests.errors import PatchSetError, unreadable
from manifests.foreign.cifar import read_cifar_file
from manifests.foreign.tables import PARQUET_SUFFIX, open_rows
from manifests.format.tar import BLOCK
from manifests.support.files import read_regular_file
from manifests.untrusted.decode import Pixels, decode_image

MAX_IMAGE_BYTES = 256 << 20  # bytes of one encoded image
GZIP_SUFFIXES = (".tar.gz", ".tgz")
TAR_SUFFIXES = (".tar", *GZIP_SUFFIXES)
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, PARQUET_SUFFIX)
MAX_MEMBERS = 300_000  # members of a tar; each of them needs about 1 KB of memory
MAX_HEADER_BYTES = 1 << 20  # bytes of the headers of one member, with long names and extended headers
MAX_UNZIPPED, MAX_RATIO = 1 << 30, 100  # unpacked bytes of a compressed tar; a multiple of its length is accepted too


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """The location of one image: a file, a member of a tar, a record of a CIFAR file, or a row of a table."""

    name: str  # path of the image below the folder or file that the user chose
    path: str
    kind: Literal["file", "member", "record", "row"] = "file"
    offset: int = 0  # of a member in bytes, or the number of a record or row
    length: int = 0  # of a member in bytes

    @property
    def where(self) -> str:
        """Return the name of the image in errors."""
        return self.path if self.kind == "file" else f"{self.path}: {self.name.rpartition('/')[2]}"


def cifar_images(files: Sequence[Path]) -> tuple[StoredImage, ...]:
    """Return all records of CIFAR files, in order."""
    records = [(file, k) for file in files for k in range(len(read_cifar_file(file)[0]))]
    stored = functools.partial(StoredImage, kind="record")
    return tuple(stored(name=f"{file.name}/{k:05d}", path=str(file), offset=k) for file, k in records)


def table_images(path: Path, rows: int) -> tuple[StoredImage, ...]:
    """Return the images in all rows of a Parquet file or of a saved data set, in order."""
    stored = functools.partial(StoredImage, path=str(path), kind="row")
    return tuple(stored(name=f"{path.name}/{row:07d}", offset=row) for row in range(rows))


def read_stored(image: StoredImage) -> bytes | Pixels:
    """Return the encoded bytes of an image. For a record of a CIFAR file, return the pixels, uint8 (32, 32, 3)."""
    if image.kind == "record":
        records = _records(image.path, version_of(image.path))
        if image.offset >= len(records):
            raise PatchSetError(f"{image.where}: this image is missing, because the file has changed; read it again")
        return records[image.offset]
    if image.kind == "row":
        return open_rows(image.path, version_of(image.path)).read(image.offset)
    try:
        if image.kind == "file":
            return read_regular_file(Path(image.path), MAX_IMAGE_BYTES)
        if image.length > MAX_IMAGE_BYTES:
            what = f"the size is {image.length} bytes, expected at most {MAX_IMAGE_BYTES}"
            raise PatchSetError(f"{image.where}: {what}; scale the image down")
        data = read_member(image.path, image.offset, image.length)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(image.where, "the image", error, "download it again") from error
    if len(data) != image.length:
        raise PatchSetError(f"{image.where}: the tar ends inside this image; download the tar again")
    return data


def read_member(path: str, offset: int, length: int) -> bytes:
    """Return ``length`` bytes of a tar from byte ``offset``. ``offset`` counts unpacked bytes of a compressed tar."""
    if is_gzip(Path(path)):
        file = _unzipped(path, version_of(path))
        file.seek(offset)
        return file.read(length)
    with open_tar(Path(path)) as plain:
        plain.seek(offset)
        return plain.read(length)


def version_of(path: str) -> tuple[int, int]:
    """Return two numbers that change when a file changes, for caches."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)
def _unzipped(path: str, version: tuple[int, int]) -> BinaryIO:
    """Open a compressed tar. Keep it open until ``version`` changes, because unpacking from the start is slow."""
    return open_tar(Path(path))


@functools.lru_cache(maxsize=2)
def _records(path: str, version: tuple[int, int]) -> Pixels:
    """Return the images of a CIFAR file, and keep the images in memory until the ``version`` of the file changes."""
    return read_cifar_file(Path(path))[0]


def pixels_of(content: bytes | Pixels, where: str) -> Pixels:
    """Convert a result of ``read_stored`` to pixels, uint8 (H, W, 3). ``where`` is the image's name in errors."""
    return decode_image(content, where) if isinstance(content, bytes) else content


def is_gzip(path: Path) -> bool:
    """Return whether a tar is compressed by gzip, according to its name."""
    return path.name.lower().endswith(GZIP_SUFFIXES)


def open_tar(path: Path) -> BinaryIO:
    """Open a tar for reading. A compressed tar is unpacked while it is read."""
    return cast(BinaryIO, gzip.open(path)) if is_gzip(path) else path.open("rb")


def members_of(path: Path) -> list[tarfile.TarInfo]:
    """Return the members of a tar. Only headers are read, up to the end marker.

    A tar without an end marker is refused, because ``tarfile`` reports no error for a damaged header.
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
                    raise PatchSetError(f"{path}: the tar has more than {MAX_MEMBERS} members; split the tar")
            headers.seek(archive.offset)
            if headers.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError("the file is probably cut off, because it has no end marker")
    return members


class _Headers:
    """The file that ``tarfile`` reads. It limits the header bytes of a member, and the bytes of an unpacked tar."""

    def __init__(self, file: BinaryIO, longest: int | None) -> None:
        self.bytes_left = MAX_HEADER_BYTES
        self._file, self._longest = file, longest

    def read(self, size: int) -> bytes:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise tarfile.ReadError(f"a member has headers of more than {MAX_HEADER_BYTES} bytes")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        if self._longest is not None and offset > self._longest:
            what = f"the tar has more than {self._longest} unpacked bytes"
            raise PatchSetError(f"{self._file.name}: {what}; unpack it with gzip -d")
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()
