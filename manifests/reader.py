"""Random access: single patches of a set, by index."""

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests import rows
from manifests.errors import PatchSetError
from manifests.files import is_plain
from manifests.images import decode_patch
from manifests.patchset import PatchSet
from manifests.schema import Shard, patch_key


def read_patches(patchset: PatchSet, indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    """RGB uint8 pixels (size, size, 3) of the patches ``indices``, in their order.

    Tables and shards are believed as they stand: ``verify`` checks them.

    Raises:
        PatchSetError: an index outside the set, a table or shard that cannot be read, or a broken image.
    """
    size, image_format = patchset.manifest.size, patchset.manifest.encoding.format
    places: dict[str, list[tuple[int, int]]] = {}
    for index in indices:
        shard = shard_of(patchset, index)
        if shard.name not in places:
            places[shard.name] = rows.read_places(patchset.folder / shard.parquet.name, shard.n)
        offset, length = places[shard.name][index - shard.first_index]
        path = patchset.shard_path(shard)
        data = _read_span(path, offset, length)
        yield decode_patch(data, f"{path}: {patch_key(index)}.{image_format}", size, image_format)


def evenly_spaced(patchset: PatchSet, count: int) -> list[int]:
    """The indices of ``count`` patches spread over a set, or of all where it has fewer."""
    n = patchset.manifest.n
    return [number * n // min(count, n) for number in range(min(count, n))]


def shard_of(patchset: PatchSet, index: int) -> Shard:
    """The shard that holds a patch.

    Raises:
        PatchSetError: the set has no such index.
    """
    if not 0 <= index < patchset.manifest.n:
        raise PatchSetError(f"{patchset.folder}: no patch {index}, the set has 0 to {patchset.manifest.n - 1}")
    shards = patchset.manifest.shards
    return shards[bisect.bisect_right(shards, index, key=lambda shard: shard.first_index) - 1]


def _read_span(path: Path, offset: int, length: int) -> bytes:
    if not is_plain(path):
        raise PatchSetError(f"{path}: is missing or no regular file")
    try:
        if not 0 <= offset <= offset + length <= path.stat().st_size:
            raise PatchSetError(f"{path}: its table says {length} bytes at {offset}, which it does not hold")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise PatchSetError(f"{path}: cannot be read: {error.strerror}") from error
