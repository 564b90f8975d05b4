"""Open a patch set in a folder, verify its shards, and read its patches."""

import bisect
import dataclasses
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import PatchSetError, corrupt, unreadable
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Shard, parse_manifest, patch_key
from manifests.format.shard_table import read_columns, read_places
from manifests.format.tar import require_canonical
from manifests.limits import max_patch_bytes
from manifests.support.counts import counted
from manifests.support.files import is_plain, read_regular_file
from manifests.untrusted.images import decode_patch

RUN_AGAIN = "run the command that wrote the folder again"  # remedy for an unfinished build


class NoPatchError(PatchSetError, IndexError):
    """A set has no patch with the requested index."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchSet:
    """A patch set: its folder and its validated manifest. Call ``verify_shards`` to verify the shards.

    This is a sequence of patches: ``len(patchset)`` counts the patches, ``patchset[i]`` reads patch i.
    A patch set can be pickled and forked, so the processes of a data loader can share it.
    """

    folder: Path
    manifest: Manifest

    def __len__(self) -> int:
        return self.manifest.n

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the RGB uint8 pixels (size, size, 3) of a patch as a new array, without verifying its shard.

        Raises:
            IndexError: the set has no patch with this index, or the index is negative.
            PatchSetError: the table or the shard cannot be read, or the image is damaged.
        """
        number = operator.index(index)
        shard = self.shard_of(number)
        offsets, sizes = _places(self.folder / shard.parquet.name, shard.n, shard.parquet.sha256)
        row, image_format = number - shard.first_index, self.manifest.encoding.format
        path = self.shard_path(shard)
        data = _read_span(path, int(offsets[row]), int(sizes[row]), max_patch_bytes(self.manifest.size))
        pixels = decode_patch(data, f"{path}: {patch_key(number)}.{image_format}", self.manifest.size, image_format)
        return pixels.copy()  # writable, as torch wants arrays

    def shard_path(self, shard: Shard) -> Path:
        """Return the path of a shard's tar. Every manifest is validated, so the path is inside the folder."""
        return self.folder / shard.name

    def shard_of(self, index: int) -> Shard:
        """Return the shard that contains a patch.

        Raises:
            IndexError: the set has no patch with this index. The error is a PatchSetError too.
        """
        if not 0 <= index < self.manifest.n:
            last = self.manifest.n - 1
            raise NoPatchError(f"{self.folder}: the set has no patch {index}; use an index from 0 to {last}")
        shards = self.manifest.shards
        return shards[bisect.bisect_right(shards, index, key=lambda shard: shard.first_index) - 1]

    def rows(self, shard: Shard) -> dict[str, list[Any]]:
        """Return the columns of a shard's table: ``key``, ``index``, ``offset``, ``size``, ``sha256``, ``pixels``.

        Each column has one value for each patch. The digests in ``sha256`` and ``pixels`` are 32 raw bytes each.
        ``offset`` and ``size`` are in bytes.
        """
        columns = read_columns(self.folder / shard.parquet.name, shard.n)
        return {name: column.to_pylist() for name, column in columns.items()}

    def row(self, index: int) -> dict[str, Any]:
        """Return the row of one patch in its shard's table, with the columns that ``rows`` returns.

        Raises:
            PatchSetError: the table cannot be read, or the set has no patch with this index.
        """
        shard = self.shard_of(index)
        columns = read_columns(self.folder / shard.parquet.name, shard.n)
        return {name: column[index - shard.first_index].as_py() for name, column in columns.items()}

    def verified_shards(self) -> Iterator[Path]:
        """Verify the shards in order, as ``verify_shards`` does. Yield the path of each shard after its check.

        Raises:
            PatchSetError: a shard differs from the manifest. The shards that were yielded before are correct.
        """
        for shard in self.manifest.shards:
            _require_shard(self, None, shard)
            yield self.shard_path(shard)


def evenly_spaced(patchset: PatchSet, count: int) -> list[int]:
    """Return the indices of ``count`` patches spread evenly over a set. Return all if the set has fewer."""
    n = len(patchset)
    return [number * n // min(count, n) for number in range(min(count, n))]


def open_folder(folder: str | Path) -> PatchSet:
    """Read and validate the ``manifest.json`` of a folder.

    Raises:
        PatchSetError: the folder or its manifest does not exist, or the manifest is invalid.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PatchSetError(f"{folder}: no such folder; choose a folder that 'patchgen build' wrote")
    path = folder / MANIFEST_NAME
    try:
        data = read_regular_file(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        what = f"the folder has no {MANIFEST_NAME}, so it is not a finished patch set"
        raise PatchSetError(f"{folder}: {what}; {RUN_AGAIN}") from error
    except OSError as error:
        raise unreadable(path, "the manifest", error, "download it again") from error
    return PatchSet(folder=folder, manifest=parse_manifest(data, str(path)))


def verify_shards(patchset: PatchSet, *, threads: int = 2, on_bytes: Callable[[int], None] | None = None) -> None:
    """Check that every shard has the size and SHA-256 in the manifest, and is a canonical tar (FORMAT.md, section 2).

    Publishers are untrusted. Therefore a shard must have no links, no unexpected names, and no member larger than
    ``max_patch_bytes``. Several threads call ``on_bytes`` with the number of bytes hashed since the last call.

    Raises:
        PatchSetError: a shard is missing, not a regular file, or wrong. The error names the first such shard.
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
    try:
        if not is_plain(path):
            raise PatchSetError(f"{path}: the shard is missing or not a regular file; download or rebuild the set")
        if (size := path.stat().st_size) != shard.bytes:
            raise corrupt(path, f"the shard has {counted(size, 'byte')}, the manifest declares {shard.bytes}")
        if (digest := file_digest(path, on_bytes)) != shard.sha256:
            raise corrupt(path, f"sha256 is {digest}, the manifest declares {shard.sha256}")
        indices = range(shard.first_index, shard.first_index + shard.n)
        names = (f"{patch_key(index)}.{manifest.encoding.format}" for index in indices)
        require_canonical(path, names, max_patch_bytes(manifest.size))
    except OSError as error:
        raise unreadable(path, "the shard", error, "download it again or rebuild it") from error


@lru_cache(maxsize=64)
def _places(table: Path, n: int, sha256: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cache the results of ``read_places`` for 64 tables. A table with another ``sha256`` is read again."""
    return read_places(table, n)


def _read_span(path: Path, offset: int, length: int, max_bytes: int) -> bytes:
    if not is_plain(path):
        raise PatchSetError(f"{path}: the shard is missing or not a regular file; download or rebuild the set")
    try:
        size = path.stat().st_size
        if not 0 <= offset <= offset + length <= size or length > max_bytes:
            span = f"{counted(length, 'byte')} at offset {offset}"
            raise corrupt(path, f"the table declares {span}, the shard has {size} bytes, a patch at most {max_bytes}")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise unreadable(path, "the shard", error, "download it again or rebuild it") from error
