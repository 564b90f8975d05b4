"""Fetch a set from a URL into the cache; every byte is hashed as it arrives.

The cached folder of a set is named by its ``set_id`` and the digest of its manifest. The manifest is written last, so
a folder that has one was complete once; files that were damaged since are fetched again.
"""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.export import finalize
from manifests.format.checksums import MAX_SUMS_BYTES, SUMS_NAME, parse_sums
from manifests.format.schema import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from manifests.patchset import PatchSet, open_folder
from manifests.remote import cache
from manifests.remote.download import SetFile, download, read_small_file, verify_remote
from manifests.remote.store import ShardStore
from manifests.remote.transfers import Channel, Job, direct_channel, run_jobs
from manifests.remote.urls import is_url, parse_url
from manifests.support.console import note
from manifests.support.files import describe_os_error, is_plain


@dataclass(frozen=True, kw_only=True)
class RemoteSet:
    """A remote set: its manifest, its ``SHA256SUMS`` (name → digest), and its folder in the cache."""

    store: ShardStore
    manifest: Manifest
    sums: dict[str, str]
    folder: Path

    @property
    def num_bytes(self) -> int:
        """Size of its shards and tables."""
        return sum(file.num_bytes for file in cache.set_files(self.manifest))


def open_patchset(location: str | Path) -> PatchSet:
    """Open the patch set in a folder or at a URL. A set at a URL is fetched into the user's cache first."""
    return open_folder(fetch(location) if isinstance(location, str) and is_url(location) else location)


def open_store(url: str) -> ShardStore:
    """Open the store at a URL."""
    parsed = parse_url(url)
    if isinstance(parsed, Path):
        raise PatchSetError(f"{url}: is a local folder; give its path")
    return ShardStore(parsed)


def read_remote_manifest(store: ShardStore) -> Manifest:
    """Read only the manifest of a set; a second time if it is damaged."""
    return _read_manifest(store, with_sums=False)[0]


def find_set(url: str) -> RemoteSet:
    """Read the manifest of a set and compare it with ``SHA256SUMS``, because ``set_id`` does not cover all of it."""
    store = open_store(url)
    manifest, sums = _read_manifest(store, with_sums=True)
    digest = hashlib.sha256(manifest.to_json()).hexdigest()
    folder = cache.cache_home() / f"{manifest.set_id}-{digest[:16]}"
    return RemoteSet(store=store, manifest=manifest, sums=sums, folder=folder)


def fetch(url: str, on_bytes: Callable[[int], None] | None = None) -> Path:
    """Return a folder with the set at ``url``; each of its files was verified when it arrived.

    For a ``file:`` URL this is the local folder itself, unverified. ``on_bytes`` is called with the number of bytes
    that became available, a negative one if some must be fetched again.
    """
    parsed = parse_url(url)
    return parsed if isinstance(parsed, Path) else fetch_set(find_set(parsed), on_bytes)


def fetch_set(remote: RemoteSet, on_bytes: Callable[[int], None] | None = None, *, reread: bool = False) -> Path:
    """Fetch a set as ``fetch`` does. With ``reread`` also read the remote copies of files that the cache has."""
    folder = remote.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            cache.lock(folder, stack)
            _fetch_into(remote, on_bytes or (lambda count: None), reread)
    except OSError as error:
        advice = "or set PATCHSET_CACHE to another folder, and run the same command again to go on"
        raise PatchSetError(f"{describe_os_error(error, folder)}, {advice}") from error
    return folder


def _fetch_into(remote: RemoteSet, on_bytes: Callable[[int], None], reread: bool) -> None:
    folder, manifest, store = remote.folder, remote.manifest, remote.store
    verified, files = cache.read_verified(folder), list(cache.set_files(manifest))
    before = dict(verified)
    on_cached = (lambda count: None) if reread else on_bytes
    try:
        missing = [file for file in files if not cache.is_intact(folder, file, verified, on_cached)]
        cache.remove_parts_but(folder, [] if reread else missing)
        jobs: list[Job] = [partial(_fetch_file, remote, file, verified) for file in missing]
        if missing:
            cache.require_space(folder, missing)
            note(f"{store.display()}: fetching {sum(file.num_bytes for file in missing) / 1e6:,.1f} MB into {folder}")
        if reread:
            jobs += [partial(verify_remote, store, file) for file in files if file not in missing]
            jobs.append(partial(_verify_exports, remote))
        run_jobs(jobs, on_bytes)
    finally:
        if verified != before:
            cache.write_verified(folder, dict(verified))  # a copy: a thread that did not end yet may add to it
    path, data = folder / MANIFEST_NAME, manifest.to_json()
    has_manifest = is_plain(path) and path.stat().st_size == len(data) and path.read_bytes() == data
    if not has_manifest or not finalize.has_exports(folder, manifest):
        finalize.write_manifest(folder, manifest)


def _fetch_file(remote: RemoteSet, file: SetFile, verified: cache.Verified, channel: Channel) -> None:
    download(remote.store, file, remote.folder, channel)
    verified[file.name] = cache.stamp(remote.folder, file)


def _verify_exports(remote: RemoteSet, channel: Channel) -> None:
    """Read and check the remote files for other tools that ``SHA256SUMS`` names, without keeping them."""
    store, manifest = remote.store, remote.manifest
    derived, limits = finalize.derived_files(manifest), finalize.longest_exports(manifest)
    for name in sorted(remote.sums.keys() - finalize.file_digests(manifest, derived=False).keys()):
        if name not in limits:
            what = f"names {name}, which is no file of the set"
            raise PatchSetError(f"{store.display(SUMS_NAME)}: {what}; report it to the publisher")
        where, expected = store.display(name), remote.sums[name]
        for is_last in (False, True):
            data = read_small_file(store, name, limits[name], channel)
            if (found := hashlib.sha256(data).hexdigest()) == expected:
                break
            if is_last:
                what = f"sha256 is {found}, SHA256SUMS there says {expected}"
                raise PatchSetError(f"{where}: {what}; report it to the publisher")
            channel.note(f"{where}: sha256 is {found}; reading it once more")
        if name in derived and not finalize.agree(data, derived[name]):
            raise PatchSetError(f"{where}: is not what the manifest gives; report it to the publisher")


def _read_manifest(store: ShardStore, *, with_sums: bool) -> tuple[Manifest, dict[str, str]]:
    channel = direct_channel()
    where = store.display(MANIFEST_NAME)
    for is_last in (False, True):
        data = read_small_file(store, MANIFEST_NAME, MAX_MANIFEST_BYTES, channel)
        sums = read_small_file(store, SUMS_NAME, MAX_SUMS_BYTES, channel) if with_sums else None
        try:
            if data.lstrip()[:1] == b"<":
                raise PatchSetError(f"{where}: is a web page, expected a manifest; check the URL")
            manifest = parse_manifest(data, where)
            return manifest, {} if sums is None else _parse_sums_of(manifest, data, sums, store.display(SUMS_NAME))
        except PatchSetError as error:
            if is_last:
                raise
            channel.note(f"{error}: reading it once more")
    raise AssertionError("unreachable")


def _parse_sums_of(manifest: Manifest, data: bytes, sums: bytes, where: str) -> dict[str, str]:
    """Parse ``SHA256SUMS`` and check that it is of a manifest, whose bytes are ``data``."""
    parsed = parse_sums(sums, where)
    expected = finalize.file_digests(manifest, derived=False) | {MANIFEST_NAME: hashlib.sha256(data).hexdigest()}
    for name, digest in expected.items():
        if parsed.get(name) != digest:
            what = f"names {name} with {parsed.get(name) or 'no digest'}, the manifest there gives {digest}"
            advice = "one of them is damaged or of another set; report it to the publisher"
            raise PatchSetError(f"{where}: {what}: {advice}")
    return parsed
