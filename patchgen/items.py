"""Images where they lie: files in a folder, members of tars, CIFAR's records; found in a fixed order."""

import functools
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from manifests.archives import TAR_SUFFIXES, is_gzip, members_of, open_tar
from manifests.cifar import cifar_files, read_cifar_file
from manifests.errors import PatchSetError
from manifests.files import read_regular_file
from manifests.terminal import note
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_IMAGE_BYTES

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm", ".bmp", ".tif", ".tiff")
NOT_READ = (".gif", ".pgm", ".pbm", ".heic", ".avif", ".jp2", ".svg")
EXPECTED = "a folder of images, WebDataset tars, or CIFAR's binary or Python files"

_TRAINING = re.compile(r"(^|[-_.])train(ing)?([-_.]|\d|$)", re.IGNORECASE)
_MEASURING = re.compile(r"(^|[-_.])(test|val|valid|validation)([-_.]|\d|$)", re.IGNORECASE)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image. ``name`` is its path below what was given; ``offset`` and ``length`` are bytes of a tar's member.

    Of a record of CIFAR's, ``offset`` is its number in the file.
    """

    name: str
    path: str
    kind: Literal["file", "member", "record"]
    offset: int = 0
    length: int = 0

    @property
    def where(self) -> str:
        """What to call it in an error."""
        return self.path if self.kind == "file" else f"{self.path}: {self.name.rpartition('/')[2]}"


def find_items(data: Path) -> list[Item]:
    """Every image in ``data``, sorted by name.

    Of a folder whose parts are called ``train`` and ``test`` or ``val`` (CIFAR's files, tars, sub-folders), and
    nothing else, the training part alone: what a student is measured on must not be in what it learns from.

    Raises:
        PatchgenError: there is none, or it cannot be read.
    """
    try:
        if not data.exists():
            raise PatchgenError(f"{data}: does not exist; expected {EXPECTED}")
        records = cifar_files(data, "train")
        if records is not None:
            items = [item for file in records for item in _records(file)]
        elif data.is_dir():
            items = _in_folder(data)
        else:
            one = data.name.lower().endswith(TAR_SUFFIXES)
            items = _members(data, data.name) if one else [_file(data, data.name)]
    except PatchSetError as error:
        raise PatchgenError(str(error)) from error
    except OSError as error:
        raise PatchgenError(f"{error.filename or data}: cannot be read: {error.strerror or error}") from error
    if not items:
        raise PatchgenError(f"{data}: holds no image; expected {EXPECTED}")
    return items


def _in_folder(data: Path) -> list[Item]:
    tars = [path for path in data.iterdir() if path.name.lower().endswith(TAR_SUFFIXES) and path.is_file()]
    names = sorted(_names_below(data))
    if tars and names:
        raise PatchgenError(f"{data}: holds tars ({tars[0].name}) and images ({names[0]}); give a folder of one kind")
    if tars:
        kept = _training_part({path.name for path in tars}, str(data))
        return [item for path in sorted(tars) if path.name in kept for item in _members(path, path.name)]
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    kept = _training_part(tops, str(data))
    return [_file(data / name, name) for name in names if "/" not in name or name.split("/", 1)[0] in kept]


def _training_part(names: set[str], where: str) -> set[str]:
    """Those whose name says that they are for training, where every other says that it is for measuring."""
    training = {name for name in names if _TRAINING.search(name)}
    measuring = {name for name in names if _MEASURING.search(name)}
    if not training or not measuring or names - training - measuring:
        return names
    note(f"{where}: {', '.join(sorted(training)[:3])} is packed, not {', '.join(sorted(measuring)[:3])}")
    return training


def _names_below(folder: Path) -> Iterator[str]:
    """The images below a folder, also behind links, each folder once; but in no folder outside it.

    Links to files are followed wherever they lead: DVC and the hubs' caches keep data sets as such.
    """

    def fail(error: OSError) -> None:
        raise error

    top, seen, left_out = os.path.realpath(folder), set(), []
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        below = Path(root).relative_to(folder)
        out = {name for name in folders if not _is_inside(os.path.join(root, name), top)}  # noqa: PTH118
        left_out += [(below / name).as_posix() for name in sorted(out)]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in out]
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name.lower().endswith(NOT_READ):
                raise PatchgenError(f"{folder / below / name}: is of a format that is not read; convert it to PNG")
            if _is_image(name):
                yield (below / name).as_posix()
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        note(f"{folder}: {left_out[0]}{more} left out: a link to a folder outside is not followed; copy that folder")


def _is_inside(path: str, top: str) -> bool:
    """Whether a path is no link, or one to something below ``top``: a set is made to be published."""
    return not os.path.islink(path) or os.path.commonpath([os.path.realpath(path), top]) == top  # noqa: PTH114


def _file(path: Path, name: str) -> Item:
    return Item(name=name, path=str(path), kind="file")


def _members(path: Path, name: str) -> list[Item]:
    """The images in a tar, to be read by place; a hard link is the member it leads to, sparse files are none."""
    try:
        found = members_of(path)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        what = "not a whole tar" if isinstance(error, EOFError) else "not a whole tar of the kind its name says"
        raise PatchgenError(f"{path}: {what}: {str(error) or type(error).__name__}; get it again") from error
    places = {member.name: member for member in found if member.isreg() and not member.issparse()}
    items = []
    for member in found:
        held = places.get(member.linkname) if member.islnk() else member
        if held is not None and held.isreg() and not held.issparse() and _is_image(member.name):
            place = {"offset": held.offset_data, "length": held.size}
            items.append(Item(name=f"{name}/{member.name}", path=str(path), kind="member", **place))
    return items


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _records(path: Path) -> list[Item]:
    count = len(read_cifar_file(path)[0])
    return [Item(name=f"{path.name}/{k:05d}", path=str(path), kind="record", offset=k) for k in range(count)]


def read_item(item: Item) -> bytes | Pixels:
    """The bytes of an image's file; of a record of CIFAR's, its pixels (32, 32, 3).

    Raises:
        PatchgenError: it cannot be read, or is larger than an image may be.
    """
    try:
        if item.kind == "record":
            return _planes(item.path)[item.offset]
        if item.kind == "file":
            return read_regular_file(Path(item.path), MAX_IMAGE_BYTES)
        if item.length > MAX_IMAGE_BYTES:
            raise PatchgenError(f"{item.where}: {item.length} bytes, expected at most {MAX_IMAGE_BYTES}")
        data = _bytes_of(item)
    except (OSError, EOFError, zlib.error) as error:
        raise PatchgenError(f"{item.where}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except PatchSetError as error:
        raise PatchgenError(str(error)) from error
    if len(data) != item.length:
        raise PatchgenError(f"{item.where}: the tar ends in the middle of it; get the tar again")
    return data


def _bytes_of(item: Item) -> bytes:
    if is_gzip(Path(item.path)):
        file = _unzipped(item.path)
        file.seek(item.offset)
        return file.read(item.length)
    with open_tar(Path(item.path)) as plain:
        plain.seek(item.offset)
        return plain.read(item.length)


@functools.lru_cache(maxsize=1)
def _unzipped(path: str) -> BinaryIO:
    """A compressed tar, left open: its members are read in turn, and going back means to begin again."""
    return open_tar(Path(path))


@functools.lru_cache(maxsize=2)
def _planes(path: str) -> Pixels:
    """One of CIFAR's files: its records are read in turn."""
    return read_cifar_file(Path(path))[0]


def item_digest(content: bytes | Pixels) -> bytes:
    """SHA-256, raw, of a file's bytes, or of a record's pixels."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    return hashlib.sha256(data).digest()
