"""A patch set on disk: open it, and verify its shards before anything reads them."""

import dataclasses
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from manifests.digest import file_digest
from manifests.errors import PatchSetError
from manifests.files import read_regular_file, write_atomically
from manifests.schema import Manifest, Shard, parse_manifest
from manifests.sums import SUMS_NAME, format_sums, read_sums
from manifests.urls import is_url

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 512 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchSet:
    """A folder and the manifest in it. Holding one says nothing of the shards: see ``verify_shards``."""

    folder: Path
    manifest: Manifest

    def shard_path(self, shard: Shard) -> Path:
        """Where a shard's tar lies. The manifest's validation fixed its name, so it stays in the folder."""
        return self.folder / shard.name


def open_patchset(folder: str | Path) -> PatchSet:
    """Read and check ``manifest.json`` in a folder; a set at a URL is first fetched into the cache.

    Raises:
        PatchSetError: no such folder, no manifest in it, or a manifest that breaks the format; as ``remote.fetch``.
    """
    if isinstance(folder, str) and is_url(folder):
        from manifests.remote import fetch  # noqa: PLC0415 - most sets are local

        folder = fetch(folder)
    folder = Path(folder)
    if not folder.is_dir():
        raise PatchSetError(f"{folder}: no such folder; a patch set is made by 'patchgen build'")
    path = folder / MANIFEST_NAME
    try:
        data = read_regular_file(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise PatchSetError(
            f"{folder}: holds no {MANIFEST_NAME}, so it is no finished patch set; "
            "run the 'patchgen build' that wrote it again to finish it"
        ) from error
    except OSError as error:
        raise PatchSetError(f"{path}: cannot be read: {error.strerror}") from error
    return PatchSet(folder=folder, manifest=parse_manifest(data, str(path)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Finish a set whose shards and tables are in ``folder``: ``SHA256SUMS``, and the manifest last of all."""
    write_atomically(folder / SUMS_NAME, format_sums(file_digests(manifest)))
    write_atomically(folder / MANIFEST_NAME, manifest.to_json())


def has_sums(folder: Path, manifest: Manifest) -> bool:
    """Whether ``SHA256SUMS`` is there and is that of ``manifest``."""
    try:
        return read_sums(folder / SUMS_NAME) == file_digests(manifest)
    except PatchSetError:
        return False


def file_digests(manifest: Manifest) -> dict[str, str]:
    """Every file of a set but ``SHA256SUMS``, with its SHA-256 as hex."""
    digests = {MANIFEST_NAME: hashlib.sha256(manifest.to_json()).hexdigest()}
    for shard in manifest.shards:
        digests |= {shard.name: shard.sha256, shard.parquet.name: shard.parquet.sha256}
    return digests


def verify_shards(patchset: PatchSet, *, threads: int = 2, on_bytes: Callable[[int], None] | None = None) -> None:
    """Check that every shard of a set is there and hashes to what its manifest says.

    ``on_bytes`` hears how many bytes were hashed, for a progress bar; it is called from several threads.

    Raises:
        PatchSetError: the first shard, in the set's order, that is missing, is no regular file, or differs.
    """
    with ThreadPoolExecutor(max_workers=max(threads, 1)) as pool:  # hashing releases the interpreter lock
        for fault in pool.map(partial(_shard_fault, patchset, on_bytes), patchset.manifest.shards):
            if fault is not None:
                pool.shutdown(cancel_futures=True)
                raise PatchSetError(fault)


def _shard_fault(patchset: PatchSet, on_bytes: Callable[[int], None] | None, shard: Shard) -> str | None:
    path = patchset.shard_path(shard)
    remedy = "rebuild it or copy it again from a good set"
    try:
        if path.is_symlink() or not path.is_file():
            return f"{path}: the shard is missing or no regular file; {remedy}"
        size = path.stat().st_size
        if size != shard.bytes:
            return f"{path}: {size} bytes, the manifest says {shard.bytes}; {remedy}"
        digest = file_digest(path, on_bytes)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}; {remedy}"
    if digest != shard.sha256:
        return f"{path}: sha256 is {digest}, the manifest says {shard.sha256}; {remedy}"
    return None
