"""What two sets have in common: the keys in which their manifests differ, and their patches one by one."""

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

_STEP = 100_000
MAX_LISTED = 20

NOT_COMPARED = ("set_id", "environment", "shards", "pixel_root")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches:
    """A comparison of the patches of two sets, index by index."""

    compared: int
    same_bytes: int
    same_pixels: int
    first_changed: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """How set B differs from set A; ``keys`` are (path, value in A, value in B) as JSON texts."""

    same_set: bool
    same_pixel_root: bool
    keys: tuple[tuple[str, str, str], ...]
    only_in_a: int
    only_in_b: int
    patches: Patches | None

    def verdict(self) -> str:
        """The relation of the two sets in a few words."""
        if self.same_set:
            return "the same set"
        if self.patches is None:
            return "the same pixels, stored in another way" if self.same_pixel_root else "different sets"
        both, p = self.patches.compared, self.patches
        longer = f"; {'B' if self.only_in_b else 'A'} goes on" if self.only_in_a or self.only_in_b else ""
        if both and p.same_bytes == both:
            return f"the same {counted(both, 'patch')}{longer or ', in other shards or of another record'}"
        if both and p.same_pixels == both:
            return f"the same pixels in {counted(both, 'patch')}, in other bytes{longer}"
        if not p.same_pixels:
            return "different sets: no patch has the same pixels"
        other = both - p.same_pixels
        return f"different sets: {other} of {counted(both, 'patch')} {'has' if other == 1 else 'have'} other pixels"


def diff_manifests(a: Manifest, b: Manifest) -> Difference:
    """Compare two manifests; nothing is known of single patches."""
    return Difference(
        same_set=a.set_id == b.set_id,
        same_pixel_root=a.pixel_root == b.pixel_root,
        keys=tuple(differences(_compared(a), _compared(b))),
        only_in_a=max(a.n - b.n, 0),
        only_in_b=max(b.n - a.n, 0),
        patches=None,
    )


def diff_sets(a: PatchSet, b: PatchSet, on_patches: Callable[[int], None] | None = None) -> Difference:
    """Compare two sets by their manifests and tables. The tables are believed: ``verify`` checks them.

    Raises:
        PatchSetError: a table cannot be read.
    """
    n = min(a.manifest.n, b.manifest.n)
    same_bytes = same_pixels = 0
    changed: list[int] = []
    rows_a, rows_b = _Rows(a), _Rows(b)
    for start in range(0, n, _STEP):
        count = min(_STEP, n - start)
        bytes_a, pixels_a = rows_a.take(count)
        bytes_b, pixels_b = rows_b.take(count)
        equal = pixels_a == pixels_b
        same_bytes += int((bytes_a == bytes_b).sum())
        same_pixels += int(equal.sum())
        changed += [start + int(i) for i in np.flatnonzero(~equal)[: MAX_LISTED - len(changed)]]
        if on_patches is not None:
            on_patches(count)
    patches = Patches(compared=n, same_bytes=same_bytes, same_pixels=same_pixels, first_changed=tuple(changed))
    return dataclasses.replace(diff_manifests(a.manifest, b.manifest), patches=patches)


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Paths at which two JSON values differ, and the two values there as JSON texts."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (item_a, item_b) in enumerate(zip(a, b, strict=True)):
            yield from differences(item_a, item_b, f"{path}[{i}]")
    elif a != b:
        yield path, json.dumps(a, ensure_ascii=False), json.dumps(b, ensure_ascii=False)


def _compared(manifest: Manifest) -> dict[str, Any]:
    value = manifest.model_dump(mode="json")
    return {key: item for key, item in value.items() if key not in NOT_COMPARED} | {
        "shard sizes": [shard["n"] for shard in value["shards"]][:1]
    }


Digests = npt.NDArray[np.void]


class _Rows:
    """The digests of a set's patches in order of index, as many at a time as asked for."""

    def __init__(self, patchset: PatchSet) -> None:
        self._tables = (
            shard_table.read_digests(patchset.folder / shard.parquet.name, shard.n)
            for shard in patchset.manifest.shards
        )
        self._left = (_as_digests(b""), _as_digests(b""))

    def take(self, count: int) -> tuple[Digests, Digests]:
        """The next ``count`` patches' digests of bytes and of pixels."""
        while len(self._left[0]) < count:
            table = next(self._tables)
            self._left = tuple(
                np.concatenate([left, _as_digests(new)]) for left, new in zip(self._left, table, strict=True)
            )  # type: ignore[assignment]
        taken = self._left[0][:count], self._left[1][:count]
        self._left = self._left[0][count:], self._left[1][count:]
        return taken


def _as_digests(raw: bytes) -> Digests:
    return np.frombuffer(raw, dtype=f"V{DIGEST_BYTES}")
