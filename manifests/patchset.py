"""Open a patch set in a folder, verify its shards, and read its patches."""

import bisect
import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import PatchSetError
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Shard, parse_manifest, patch_key
from manifests.format.shard_table import read_columns, read_contract, read_places
from manifests.format.tar import require_canonical
from manifests.limits import max_patch_bytes
from manifests.support.counts import counted
from manifests.support.files import is_plain, read_regular_file
from manifests.untrusted.images import decode_patch


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchSet:
    """A folder and the manifest in it. Its shards may be missing or damaged: see ``verify_shards``.

    A sequence of patches: ``len(patchset)`` counts them, ``patchset[i]`` reads patch i from its shard. It can be
    pickled and forked, so that processes of a data loader can share one.
    """

    folder: Path
    manifest: Manifest

    def __len__(self) -> int:
        return self.manifest.n

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the RGB uint8 pixels (size, size, 3) of a patch as a new array, without verifying its shard.

        Raises:
            IndexError: the set has no such patch. Negative indices are refused.
            PatchSetError: its table or shard cannot be read, or holds no such image.
        """
        number = operator.index(index)
        try:
            shard = self.shard_of(number)
        except PatchSetError as error:
            raise IndexError(str(error)) from None
        offsets, sizes = _places(self.folder / shard.parquet.name, shard.n, shard.parquet.sha256)
        row, image_format = number - shard.first_index, self.manifest.encoding.format
        path = self.shard_path(shard)
        data = _read_span(path, int(offsets[row]), int(sizes[row]), max_patch_bytes(self.manifest.size))
        pixels = decode_patch(data, f"{path}: {patch_key(number)}.{image_format}", self.manifest.size, image_format)
        return pixels.copy()  # writable, as torch wants arrays

    def shard_path(self, shard: Shard) -> Path:
        """Return the path of a shard's tar. Validation of the manifest fixed its name, so it is inside the folder."""
        return self.folder / shard.name

    def shard_of(self, index: int) -> Shard:
        """Return the shard that holds a patch.

        Raises:
            PatchSetError: the set has no such index.
        """
        if not 0 <= index < self.manifest.n:
            raise PatchSetError(f"{self.folder}: no patch {index}, the set has 0 to {self.manifest.n - 1}")
        shards = self.manifest.shards
        return shards[bisect.bisect_right(shards, index, key=lambda shard: shard.first_index) - 1]

    def rows(self, shard: Shard) -> dict[str, list[Any]]:
        """Return the columns of a shard's table: ``key``, ``index``, ``offset``, ``size``, ``sha256``, ``pixels``.

        Each has one value per patch. Digests are 32 raw bytes; offset and size are bytes in the tar.

        Raises:
            PatchSetError: the table cannot be read, or has other rows or columns.
        """
        return read_contract(self.folder / shard.parquet.name, shard.n)

    def row(self, index: int) -> dict[str, Any]:
        """Return the row of one patch: the values of the columns that ``rows`` returns.

        Raises:
            PatchSetError: the table cannot be read, or the set has no such patch.
        """
        shard = self.shard_of(index)
        columns = read_columns(self.folder / shard.parquet.name, shard.n)
        return {name: column[index - shard.first_index].as_py() for name, column in columns.items()}

    def verified_shards(self) -> Iterator[Path]:
        """Yield the path of each shard, in order, after checking it like ``verify_shards``.

        Raises:
            PatchSetError: a shard is not what the manifest says; those before it were good.
        """
        for shard in self.manifest.shards:
            _require_shard(self, None, shard)
            yield self.shard_path(shard)


def read_patches(patchset: PatchSet, indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the patches ``indices`` as ``patchset[index]`` does; PatchSetError for an index outside the set."""
    for index in indices:
        try:
            yield patchset[index]
        except IndexError as error:
            raise PatchSetError(str(error)) from error


def evenly_spaced(patchset: PatchSet, count: int) -> list[int]:
    """Return the indices of ``count`` patches spread evenly over a set, or of all if it has fewer."""
    n = len(patchset)
    return [number * n // min(count, n) for number in range(min(count, n))]


def open_folder(folder: str | Path) -> PatchSet:
    """Read and validate ``manifest.json`` of a folder.

    Raises:
        PatchSetError: no such folder, no manifest in it, or a manifest that breaks the format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PatchSetError(f"{folder}: no such folder; expected a patch set, which 'patchgen build' writes")
    path = folder / MANIFEST_NAME
    try:
        data = read_regular_file(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        what = f"holds no {MANIFEST_NAME}, so it is not a finished patch set"
        raise PatchSetError(f"{folder}: {what}; run the command that wrote it again to finish it") from error
    except OSError as error:
        raise PatchSetError(f"{path}: cannot be read: {error.strerror}") from error
    return PatchSet(folder=folder, manifest=parse_manifest(data, str(path)))


def verify_shards(patchset: PatchSet, *, threads: int = 2, on_bytes: Callable[[int], None] | None = None) -> None:
    """Check that every shard has the size and SHA-256 of the manifest, and is a canonical tar of its patches.

    The digest proves that it is the published shard. The tar is checked because publishers are untrusted: no links,
    no names but the keys, no member larger than a patch.

    ``on_bytes`` is called with the number of bytes hashed since its last call, from several threads.

    Raises:
        PatchSetError: the first shard, in the set's order, that is missing, not a regular file, or differs.
    """
    with ThreadPoolExecutor(max_workers=max(threads, 1)) as pool:  # hashing releases the interpreter lock
        try:
            for _ in pool.map(partial(_require_shard, patchset, on_bytes), patchset.manifest.shards):
                pass
        except PatchSetError:
            pool.shutdown(cancel_futures=True)
            raise


def _require_shard(patchset: PatchSet, on_bytes: Callable[[int], None] | None, shard: Shard) -> None:
    path, manifest = patchset.shard_path(shard), patchset.manifest
    remedy = "rebuild it or copy it again from a good set"
    try:
        if not is_plain(path):
            raise PatchSetError(f"{path}: the shard is missing or not a regular file; {remedy}")
        if (size := path.stat().st_size) != shard.bytes:
            raise PatchSetError(f"{path}: {counted(size, 'byte')}, the manifest says {shard.bytes}; {remedy}")
        if (digest := file_digest(path, on_bytes)) != shard.sha256:
            raise PatchSetError(f"{path}: sha256 is {digest}, the manifest says {shard.sha256}; {remedy}")
        indices = range(shard.first_index, shard.first_index + shard.n)
        names = (f"{patch_key(index)}.{manifest.encoding.format}" for index in indices)
        require_canonical(path, names, max_patch_bytes(manifest.size))
    except OSError as error:
        raise PatchSetError(f"{path}: cannot be read: {error.strerror}; {remedy}") from error


@lru_cache(maxsize=64)
def _places(table: Path, n: int, sha256: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cache ``read_places`` of the shards read last, 16 bytes a patch; ``sha256`` of the table is part of the key."""
    return read_places(table, n)


def _read_span(path: Path, offset: int, length: int, max_bytes: int) -> bytes:
    if not is_plain(path):
        raise PatchSetError(f"{path}: is missing or not a regular file")
    try:
        if not 0 <= offset <= offset + length <= path.stat().st_size or length > max_bytes:
            span = f"{counted(length, 'byte')} at {offset}"
            raise PatchSetError(f"{path}: its table says {span}, which it does not hold")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise PatchSetError(f"{path}: cannot be read: {error.strerror}") from error
