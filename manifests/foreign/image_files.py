"""Read one image from a file, a member of a tar, or a record of a CIFAR file."""

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

MAX_IMAGE_BYTES = 256 << 20  # bytes of one encoded image


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredImage:
    """Where one image is stored. ``name`` is its path below the data that the user gave.

    ``offset`` and ``length`` are the bytes of a tar's member. For a record of a CIFAR file, ``offset`` is its number.
    """

    name: str
    path: str
    kind: Literal["file", "member", "record"]
    offset: int = 0
    length: int = 0

    @property
    def where(self) -> str:
        """Return the name of the image in errors."""
        return self.path if self.kind == "file" else f"{self.path}: {self.name.rpartition('/')[2]}"


def file_image(path: Path, name: str) -> StoredImage:
    """Return an image file as a stored image."""
    return StoredImage(name=name, path=str(path), kind="file")


def cifar_images(files: Sequence[Path]) -> tuple[StoredImage, ...]:
    """Return every record of CIFAR files, in order."""
    records = ((file, k) for file in files for k in range(len(read_cifar_file(file)[0])))
    return tuple(
        StoredImage(name=f"{file.name}/{k:05d}", path=str(file), kind="record", offset=k) for file, k in records
    )


def read_stored(image: StoredImage) -> bytes | Pixels:
    """Return the bytes of an image's file or member; for a CIFAR record its pixels, uint8 (32, 32, 3)."""
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
    """Return bytes of a tar; ``offset`` counts unpacked bytes if it is compressed."""
    if is_gzip(Path(path)):
        file = _unzipped(path, _version(path))
        file.seek(offset)
        return file.read(length)
    with open_tar(Path(path)) as plain:
        plain.seek(offset)
        return plain.read(length)


def _version(path: str) -> tuple[int, int]:
    """Return time and length of a file, which change when it is written again."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)
def _unzipped(path: str, version: tuple[int, int]) -> BinaryIO:
    """Return a compressed tar and keep it open: its members are read in order, and seeking back is slow."""
    return open_tar(Path(path))


@functools.lru_cache(maxsize=2)
def _records(path: str, version: tuple[int, int]) -> Pixels:
    """Return the images of a CIFAR file and keep them in memory: its records are read in order."""
    return read_cifar_file(Path(path))[0]


def pixels_of(content: bytes | Pixels, where: str) -> Pixels:
    """Return the pixels of a result of ``read_stored``, uint8 (H, W, 3)."""
    return decode_image(content, where) if isinstance(content, bytes) else content
