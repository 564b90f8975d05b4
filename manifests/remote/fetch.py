"""Download a set from a URL into the cache. Hash every byte when it arrives.

The name of a set's folder in the cache consists of ``set_id`` and the digest of the manifest. The manifest is written
last, so a folder with a manifest has contained all files. Files that were damaged afterwards are downloaded again.

A verified file gets a modification time that is computed from the digest of the file. When the set is used again, a
file is hashed only if its size or modification time is different.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from manifests.errors import PatchSetError
from manifests.export import finalize
from manifests.format.checksums import MAX_SUMS_BYTES, SUMS_NAME, parse_sums
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, MAX_MANIFEST_BYTES, File, Manifest, parse_manifest
from manifests.patchset import PatchSet, open_folder
from manifests.remote.download import download, read_small_file, verify_remote
from manifests.remote.store import ShardStore
from manifests.remote.transfers import Channel, Job, direct_channel, run_jobs
from manifests.remote.urls import is_url, parse_url
from manifests.support import files
from manifests.support.console import note

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RemoteSet:
    """The manifest and the content of ``SHA256SUMS`` of a set at a URL. The shards may not be downloaded yet."""

    store: ShardStore
    manifest: Manifest
    sums: dict[str, str]  # the content of ``SHA256SUMS``: from file names to hex digests
    folder: Path  # of the downloaded set in the cache

    @property
    def num_bytes(self) -> int:
        """Return the total size of all shards and tables in bytes."""
        return sum(file.bytes for file in self.manifest.files)


def cache_home() -> Path:
    """Return the cache folder: ``$PATCHSET_CACHE``, or ``patchset`` in the user's cache folder."""
    try:
        own = os.environ.get("PATCHSET_CACHE")
        return files.user_cache("PATCHSET_CACHE") if own else files.user_cache() / "patchset"
    except ValueError as error:
        raise PatchSetError(f"{error}; set PATCHSET_CACHE to the folder for downloaded sets") from error


def open_patchset(location: str | Path) -> PatchSet:
    """Return the patch set in a folder or at a URL. Download a set at a URL into the user's cache first."""
    return open_folder(fetch(location) if isinstance(location, str) and is_url(location) else location)


def open_store(url: str) -> ShardStore:
    """Open the remote folder of the set at ``url``."""
    parsed = parse_url(url)
    if isinstance(parsed, Path):
        raise PatchSetError(f"{url}: the URL names a local folder; use the path of the folder")
    return ShardStore(parsed)


def read_remote_manifest(store: ShardStore) -> Manifest:
    """Download and return the manifest of a remote set. If the manifest is damaged, download it a second time."""
    return _read_manifest(store, with_sums=False)[0]


def find_set(url: str) -> RemoteSet:
    """Read the manifest and ``SHA256SUMS`` of a remote set. Raise an error if the digests in the two files differ."""
    store = open_store(url)
    manifest, sums = _read_manifest(store, with_sums=True)
    digest = hashlib.sha256(manifest.to_json()).hexdigest()
    folder = cache_home() / f"{manifest.set_id}-{digest[:16]}"
    return RemoteSet(store=store, manifest=manifest, sums=sums, folder=folder)


def fetch(url: str, on_bytes: Callable[[int], None] | None = None) -> Path:
    """Download the set at ``url`` into a folder in the cache, and return the folder. Verify each file on arrival.

    For a ``file:`` URL, return the local folder without verification. Call ``on_bytes`` with the number of bytes that
    arrived or were in the cache before. A negative number means that bytes must be downloaded again.
    """
    parsed = parse_url(url)
    return parsed if isinstance(parsed, Path) else fetch_set(find_set(parsed), on_bytes)


def fetch_set(remote: RemoteSet, on_bytes: Callable[[int], None] | None = None, *, reread: bool = False) -> Path:
    """Download a set into a folder in the cache, and return the folder. With ``reread``, verify every remote file."""
    folder = remote.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        waiting = partial(note, f"{folder}: another process uses this folder; waiting until that process ends")
        with files.hold_folder(folder, on_wait=waiting):
            _fetch_into(remote, on_bytes or (lambda count: None), reread)
    except OSError as error:
        advice = "or set PATCHSET_CACHE to another folder, and run the same command again to continue"
        raise PatchSetError(f"{files.describe_os_error(error, folder)}, {advice}") from error
    return folder


def _fetch_into(remote: RemoteSet, on_bytes: Callable[[int], None], reread: bool) -> None:
    folder, manifest, store = remote.folder, remote.manifest, remote.store
    if reread:
        files.remove_parts(folder)  # every byte must be read from the server
    jobs: list[Job] = []
    num_bytes = 0
    for file in manifest.files:
        if not _is_intact(folder / file.name, file):
            num_bytes += file.bytes
            jobs.append(partial(_fetch_file, remote, file))
        elif reread:
            jobs.append(partial(verify_remote, store, file))
        else:
            on_bytes(file.bytes)
    if num_bytes:
        note(f"{store.display()}: downloading {num_bytes / 1e6:,.1f} MB into {folder}")
    if reread:
        jobs.append(partial(_verify_exports, remote))
    run_jobs(jobs, on_bytes)
    files.remove_parts(folder)
    path, data = folder / MANIFEST_NAME, manifest.to_json()
    has_manifest = files.is_plain(path) and path.stat().st_size == len(data) and path.read_bytes() == data
    if not has_manifest or not finalize.has_exports(folder, manifest):
        finalize.write_manifest(folder, manifest)


def _fetch_file(remote: RemoteSet, file: File, channel: Channel) -> None:
    download(remote.store, file, remote.folder, channel)
    _mark_verified(remote.folder / file.name, file)


def _is_intact(path: Path, file: File) -> bool:
    """Return whether the file at ``path`` has the size and digest of ``file``. Remove a damaged file."""
    if not files.is_plain(path):  # the download fails if this is a folder
        if path.is_symlink():
            path.unlink()
        return False
    status = path.stat()
    is_verified = status.st_mtime_ns == _verified_time(file)
    if status.st_size == file.bytes and (is_verified or file_digest(path) == file.sha256):
        _mark_verified(path, file)
        return True
    note(f"{path}: the file is damaged; downloading it again")
    path.unlink()
    return False


def _verified_time(file: File) -> int:
    return int(file.sha256[:7], 16) * 10**9  # before 1979; every file system can store whole seconds


def _mark_verified(path: Path, file: File) -> None:
    with contextlib.suppress(OSError):  # a file without the mark is hashed again
        os.utime(path, ns=(time.time_ns(), _verified_time(file)))  # recent access: cleaners delete unused files


def _verify_exports(remote: RemoteSet, channel: Channel) -> None:
    store, manifest = remote.store, remote.manifest
    derived, limits = finalize.derived_files(manifest), finalize.longest_exports(manifest)
    for name in sorted(remote.sums.keys() - finalize.file_digests(manifest, derived=False).keys()):
        if name not in limits:
            what = f"the file lists {name}, which is not a file of this set"
            raise PatchSetError(f"{store.display(SUMS_NAME)}: {what}; report this to the publisher of the set")
        read = partial(read_small_file, store, name, limits[name], channel)
        data = _checked(read, partial(_require_digest, store.display(name), remote.sums[name]), channel)
        if name in derived and not finalize.agree(data, derived[name]):
            what = "the file does not match the manifest"
            raise PatchSetError(f"{store.display(name)}: {what}; report this to the publisher of the set")


def _checked(read: Callable[[], bytes], check: Callable[[bytes], T], channel: Channel) -> T:
    """Return ``check(read())``. If ``check`` raises a ``PatchSetError``, call ``read`` and ``check`` once more."""
    data = read()
    try:
        return check(data)
    except PatchSetError as error:
        channel.note(f"{error} (reading the file once more)")
    return check(read())


def _require_digest(where: str, expected: str, data: bytes) -> bytes:
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        what = f"sha256 is {found}, {SUMS_NAME} lists {expected}"
        raise PatchSetError(f"{where}: {what}; report this to the publisher of the set")
    return data


def _read_manifest(store: ShardStore, *, with_sums: bool) -> tuple[Manifest, dict[str, str]]:
    channel, where = direct_channel(), store.display(MANIFEST_NAME)

    def parse(data: bytes) -> tuple[Manifest, dict[str, str]]:
        if data.lstrip()[:1] == b"<":
            raise PatchSetError(f"{where}: the server sent a web page, expected a manifest; check the URL")
        manifest = parse_manifest(data, where)
        if not with_sums:
            return manifest, {}
        sums = read_small_file(store, SUMS_NAME, MAX_SUMS_BYTES, channel)
        return manifest, _parse_sums_of(manifest, data, sums, store.display(SUMS_NAME))

    return _checked(partial(read_small_file, store, MANIFEST_NAME, MAX_MANIFEST_BYTES, channel), parse, channel)


def _parse_sums_of(manifest: Manifest, data: bytes, sums: bytes, where: str) -> dict[str, str]:
    """Compare the digests in ``sums`` with a manifest, and return them. ``data`` is the manifest as bytes."""
    parsed = parse_sums(sums, where)
    expected = finalize.file_digests(manifest, derived=False) | {MANIFEST_NAME: hashlib.sha256(data).hexdigest()}
    for name, digest in expected.items():
        if parsed.get(name) != digest:
            what = f"the digest of {name} is {parsed.get(name) or 'missing'}, expected {digest}"
            raise PatchSetError(f"{where}: {what}; report this to the publisher of the set")
    return parsed
