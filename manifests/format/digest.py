"""The four digests of a patch set, all SHA-256: pixels, encoded bytes, shard file, set.

Source of the definitions: ``FORMAT.md`` beside this file.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import PatchSetError
from manifests.format.canonical_json import canonical_sha256

DIGEST_BYTES = 32
_BLOCK = 1 << 20
_UINT8 = np.dtype(np.uint8)

NOT_IN_SET_ID = frozenset({"set_id", "environment"})
NOT_IN_SET_ID_SOURCE = frozenset({"name", "licence", "url", "attribution"})
NOT_IN_SET_ID_SHARD = frozenset({"parquet"})


def pixel_digest(patch: npt.NDArray[np.uint8]) -> bytes:
    """SHA-256 of a patch's pixels before encoding: RGB, uint8, shape (H, W, 3), C order, no header."""
    if patch.dtype != _UINT8 or patch.ndim != 3 or patch.shape[2] != 3:
        raise PatchSetError(
            f"pixel digest: got {patch.dtype} of shape {patch.shape}, expected uint8 of shape (H, W, 3)"
        )
    return hashlib.sha256(np.ascontiguousarray(patch).data).digest()


def file_digest(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file as 64 lower-case hex digits; ``on_bytes`` hears how many bytes were read."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return state.hexdigest()


def pixel_root(digests: Iterable[bytes]) -> str:
    """SHA-256 over the raw pixel digests (32 bytes each) in index order, as hex.

    A chunk may hold several digests, one after the other: the root depends on their order alone.
    """
    state = hashlib.sha256()
    for chunk in digests:
        if len(chunk) % DIGEST_BYTES:
            raise PatchSetError(f"pixel root: {len(chunk)} bytes are no whole number of SHA-256 digests")
        state.update(chunk)
    return state.hexdigest()


def set_id(manifest: dict[str, Any]) -> str:
    """SHA-256, as hex, of the canonical JSON of a manifest's identity.

    Left out are what does not change a patch or a shard: ``set_id`` itself, ``environment``, the Parquet
    files, and a source's name and card texts (licence, url, attribution).
    """
    identity = {key: value for key, value in manifest.items() if key not in NOT_IN_SET_ID}
    identity["sources"] = [_without(source, NOT_IN_SET_ID_SOURCE) for source in manifest["sources"]]
    identity["shards"] = [_without(shard, NOT_IN_SET_ID_SHARD) for shard in manifest["shards"]]
    return canonical_sha256(identity)


def _without(value: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in keys}
