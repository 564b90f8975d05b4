"""Compare two sets: the values in their manifests, and the digests of their patches."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.format import shard_table
from manifests.format.digest import DIGEST_BYTES
from manifests.format.schema import Manifest
from manifests.patchset import PatchSet
from manifests.support.counts import counted

MAX_LISTED = 20  # indices of changed patches that a comparison lists
NOT_COMPARED = {"set_id", "environment", "shards", "pixel_root"}

Digests = npt.NDArray[np.void]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchComparison:
    """Counts of patches. Each patch of set A was compared with the patch of set B that has the same index."""

    compared: int  # patches that were compared
    same_bytes: int  # patches whose encoded bytes are equal
    same_pixels: int  # patches whose pixels before encoding are equal
    first_changed: tuple[int, ...]  # indices of the first patches whose pixels differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """The differences between set A and set B."""

    same_set: bool  # equal ``set_id``
    same_pixel_root: bool
    lossy: bool  # one set or both are JPEG, so patches that were equal before encoding may decode to other pixels
    keys: tuple[tuple[str, str, str], ...]  # path in the manifest, value in A, value in B; values are JSON texts
    only_in_a: int  # number of patches that A has and B lacks
    only_in_b: int
    patches: PatchComparison | None  # None if only the manifests were compared

    def summary(self) -> str:
        """Describe in one line how the two sets differ."""
        if self.same_set:
            return "the same set"
        same = "the same pixels before encoding" if self.lossy else "the same pixels"
        if self.patches is None:
            return f"{same}, but the manifests differ" if self.same_pixel_root else "different sets"
        count, p = self.patches.compared, self.patches
        longer = f"; {'B' if self.only_in_b else 'A'} has more patches" if self.only_in_a or self.only_in_b else ""
        if count and p.same_bytes == count:
            return f"the same {counted(count, 'patch')}{longer or ', but the manifests differ'}"
        if count and p.same_pixels == count:
            decoded = "; jpg is lossy, so the decoded patches may differ" if self.lossy else ""
            return f"{same} in {counted(count, 'patch')}, encoded in other bytes{decoded}{longer}"
        if not p.same_pixels:
            return "different sets: no patch has the same pixels"
        return f"different sets: other pixels in {count - p.same_pixels} of {counted(count, 'patch')}"


def diff_manifests(a: Manifest, b: Manifest) -> Difference:
    """Compare two manifests. The patches are not compared."""
    return Difference(
        same_set=a.set_id == b.set_id,
        same_pixel_root=a.pixel_root == b.pixel_root,
        lossy="jpg" in (a.encoding.format, b.encoding.format),
        keys=tuple(differences(_compared(a), _compared(b))),
        only_in_a=max(a.n - b.n, 0),
        only_in_b=max(b.n - a.n, 0),
        patches=None,
    )


def diff_sets(a: PatchSet, b: PatchSet, on_patches: Callable[[int], None] | None = None) -> Difference:
    """Compare the manifests of two sets, and the patch digests in their tables. No tar is read.

    ``on_patches`` is called with the number of patches compared since its last call.
    """
    compared = same_bytes = same_pixels = 0
    changed: list[int] = []
    for (bytes_a, pixels_a), (bytes_b, pixels_b) in _aligned_digests(a, b):
        equal = pixels_a == pixels_b
        same_bytes += int((bytes_a == bytes_b).sum())
        same_pixels += int(equal.sum())
        changed += [compared + int(i) for i in np.flatnonzero(~equal)[: MAX_LISTED - len(changed)]]
        compared += len(equal)
        if on_patches is not None:
            on_patches(len(equal))
    counts = {"compared": compared, "same_bytes": same_bytes, "same_pixels": same_pixels}
    patches = PatchComparison(**counts, first_changed=tuple(changed))
    return dataclasses.replace(diff_manifests(a.manifest, b.manifest), patches=patches)


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Compare two JSON values. For each path at which they differ, yield the path and both values as JSON texts."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (item_a, item_b) in enumerate(zip(a, b, strict=True)):
            yield from differences(item_a, item_b, f"{path}[{i}]")
    elif a != b:
        yield path, json.dumps(a, ensure_ascii=False), json.dumps(b, ensure_ascii=False)


def _compared(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", exclude=NOT_COMPARED) | {"shard sizes": [manifest.shards[0].n]}


def _aligned_digests(a: PatchSet, b: PatchSet) -> Iterator[tuple[Digests, Digests]]:
    """Yield two arrays (2, n): digests of the same n patches in A and in B. Row 0 is for bytes, row 1 for pixels."""
    tables_a, tables_b = _shard_digests(a), _shard_digests(b)
    rest_a = rest_b = np.empty((2, 0), f"V{DIGEST_BYTES}")
    left = min(a.manifest.n, b.manifest.n)
    while left:
        rest_a = rest_a if rest_a.size else next(tables_a)
        rest_b = rest_b if rest_b.size else next(tables_b)
        count = min(rest_a.shape[1], rest_b.shape[1], left)
        yield rest_a[:, :count], rest_b[:, :count]
        rest_a, rest_b, left = rest_a[:, count:], rest_b[:, count:], left - count


def _shard_digests(patchset: PatchSet) -> Iterator[Digests]:
    for shard in patchset.manifest.shards:
        columns = shard_table.read_columns(patchset.folder / shard.parquet.name, shard.n, ("sha256", "pixels"))
        raw = map(shard_table.raw_digests, columns.values())
        yield np.stack([np.frombuffer(column, f"V{DIGEST_BYTES}") for column in raw])
