"""Compute the SHA-256 digests of a patch set. ``manifests/FORMAT.md`` defines them."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import PatchSetError
from manifests.format.canonical_json import canonical_json

DIGEST_BYTES = 32
_BLOCK = 1 << 20
_UINT8 = np.dtype(np.uint8)

NOT_IN_SET_ID = frozenset({"set_id", "environment"})
NOT_IN_SET_ID_SOURCE = frozenset({"name", "licence", "url", "attribution"})
NOT_IN_SET_ID_SHARD = frozenset({"parquet"})


def pixel_digest(patch: npt.NDArray[np.uint8]) -> bytes:
    """Return the SHA-256, as 32 bytes, of the RGB pixels of a patch, uint8 (H, W, 3), in C order."""
    if patch.dtype != _UINT8 or patch.ndim != 3 or patch.shape[2] != 3:
        found = f"{patch.dtype} of shape {patch.shape}"
        raise PatchSetError(f"pixel digest: the patch is {found}, expected uint8 of shape (H, W, 3); convert it")
    return hashlib.sha256(np.ascontiguousarray(patch).data).digest()


def file_digest(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file as hex. ``on_bytes`` is called with the size of each block that was read."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return state.hexdigest()


def pixel_root(digests: Iterable[bytes]) -> str:
    """Return the SHA-256, as hex, of all pixel digests. An item of ``digests`` may be several joined digests."""
    state = hashlib.sha256()
    for chunk in digests:
        if len(chunk) % DIGEST_BYTES:
            what = f"an item has {len(chunk)} bytes, expected a multiple of {DIGEST_BYTES}"
            raise PatchSetError(f"pixel root: {what}; join whole digests")
        state.update(chunk)
    return state.hexdigest()


def set_id(manifest: dict[str, Any]) -> str:
    """Return the SHA-256, as hex, of a manifest's canonical JSON without the keys that do not affect a tar.

    These keys are ``set_id``, ``environment``, a shard's ``parquet``, and a source's name, license, URL and author.
    """
    identity = {key: value for key, value in manifest.items() if key not in NOT_IN_SET_ID}
    identity["sources"] = [_without(source, NOT_IN_SET_ID_SOURCE) for source in manifest["sources"]]
    identity["shards"] = [_without(shard, NOT_IN_SET_ID_SHARD) for shard in manifest["shards"]]
    return hashlib.sha256(canonical_json(identity)).hexdigest()


def _without(value: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in keys}
