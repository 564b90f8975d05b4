"""Images where they lie, files in folders, members of tars or CIFAR's records, and how each is read."""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from manifests.errors import PatchSetError
from manifests.foreign.cifar import read_cifar_file
from manifests.foreign.tar_members import is_gzip, open_tar
from manifests.support.files import read_regular_file
from manifests.untrusted.decode import Pixels, decode_image

MAX_IMAGE_BYTES = 256 << 20
"""Of one encoded image."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """One image where it lies. ``name`` is its path below the data that was given.

    ``offset`` and ``length`` are the bytes of a tar's member. Of a record in a CIFAR file, ``offset`` is its number.
    """

    name: str
    path: str
    kind: Literal["file", "member", "record"]
    offset: int = 0
    length: int = 0

    @property
    def where(self) -> str:
        """Return what errors call the image."""
        return self.path if self.kind == "file" else f"{self.path}: {self.name.rpartition('/')[2]}"


def file_image(path: Path, name: str) -> StoredImage:
    """Return an image file as a stored image."""
    return StoredImage(name=name, path=str(path), kind="file")


def cifar_images(files: Sequence[Path]) -> list[StoredImage]:
    """Return every record of CIFAR's files, in order.

    Raises:
        PatchSetError: a file is damaged.
    """
    return [
        StoredImage(name=f"{file.name}/{k:05d}", path=str(file), kind="record", offset=k)
        for file in files
        for k in range(len(read_cifar_file(file)[0]))
    ]


def read_stored(image: StoredImage) -> bytes | Pixels:
    """Return the bytes of an image's file or member; of a record of CIFAR's, its pixels, uint8 (32, 32, 3).

    Raises:
        PatchSetError: it cannot be read, or is larger than ``MAX_IMAGE_BYTES``.
    """
    if image.kind == "record":
        return _records(image.path, _version(image.path))[image.offset]
    try:
        if image.kind == "file":
            return read_regular_file(Path(image.path), MAX_IMAGE_BYTES)
        if image.length > MAX_IMAGE_BYTES:
            raise PatchSetError(f"{image.where}: {image.length} bytes, expected at most {MAX_IMAGE_BYTES}")
        data = read_member(image.path, image.offset, image.length)
    except (OSError, EOFError, zlib.error) as error:
        raise PatchSetError(f"{image.where}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) != image.length:
        raise PatchSetError(f"{image.where}: the tar ends in the middle of it; get the tar again")
    return data


def read_member(path: str, offset: int, length: int) -> bytes:
    """Return bytes of a tar, which are sought in the unpacked tar where it is compressed.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read.
    """
    if is_gzip(Path(path)):
        file = _unzipped(path, _version(path))
        file.seek(offset)
        return file.read(length)
    with open_tar(Path(path)) as plain:
        plain.seek(offset)
        return plain.read(length)


def _version(path: str) -> tuple[int, int]:
    """Return what changes when a file is written again: its time and its length."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)
def _unzipped(path: str, version: tuple[int, int]) -> BinaryIO:
    """Return a compressed tar, which stays open: its members are read in turn, and going back is slow."""
    return open_tar(Path(path))


@functools.lru_cache(maxsize=2)
def _records(path: str, version: tuple[int, int]) -> Pixels:
    """Return the images of a CIFAR file, which stay in memory: its records are read in turn."""
    return read_cifar_file(Path(path))[0]


def pixels_of(content: bytes | Pixels, where: str) -> Pixels:
    """Return the pixels of what ``read_stored`` gave, uint8 (H, W, 3).

    Raises:
        PatchSetError: as ``decode_image``.
    """
    return decode_image(content, where) if isinstance(content, bytes) else content
