"""Sets that lie elsewhere: fetched into a folder of the cache, every byte hashed as it comes.

A set's folder there is named by its ``set_id`` and its manifest's own digest. The manifest is written last, so a
folder that has one was whole once; what was damaged since is fetched again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from manifests.errors import PatchSetError
from manifests.export.finalize import file_digests, has_exports, write_manifest
from manifests.format.checksums import MAX_SUMS_BYTES, SUMS_NAME, parse_sums
from manifests.format.schema import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from manifests.patchset import PatchSet, open_folder
from manifests.remote.cache import (
    Seen,
    SetFile,
    cache_home,
    held,
    is_there,
    note_seen,
    read_seen,
    remove_others,
    require_room,
    seen_now,
    set_files,
)
from manifests.remote.download import download, prove, read_whole
from manifests.remote.set_files import prove_exports
from manifests.remote.store import StorePlace
from manifests.remote.transfers import Channel, Job, alone, run_jobs
from manifests.remote.urls import WEB_SCHEMES, Place, is_url, parse_url
from manifests.remote.web import WebPlace
from manifests.support.console import note
from manifests.support.files import describe_os_error, is_plain, read_regular_file


@dataclass(frozen=True, kw_only=True)
class RemoteSet:
    """A set elsewhere whose manifest was read, and the folder of the cache that it belongs into."""

    place: Place
    manifest: Manifest
    sums: dict[str, str]
    """What its ``SHA256SUMS`` says."""
    folder: Path

    @property
    def bytes(self) -> int:
        """Bytes of its shards and tables."""
        return sum(file.bytes for file in set_files(self.manifest))


def open_patchset(location: str | Path) -> PatchSet:
    """Open the patch set in a folder, or at a URL: the latter is first fetched into the user's cache.

    Raises:
        PatchSetError: as ``open_folder`` and ``fetch_set``.
    """
    return open_folder(fetch(location) if isinstance(location, str) and is_url(location) else location)


def open_place(url: str) -> Place:
    """Where the files of a set lie.

    Raises:
        PatchSetError: the URL is none that may be read, or what reads it is not installed.
    """
    parsed = parse_url(url)
    if isinstance(parsed, Path):
        raise PatchSetError(f"{url}: is a local folder; give its path")
    return WebPlace(parsed) if urlsplit(parsed).scheme.lower() in WEB_SCHEMES else StorePlace(parsed)


def read_remote_manifest(place: Place) -> Manifest:
    """A set's manifest, alone. One that is damaged is read once more.

    Raises:
        PatchSetError: it cannot be had, or breaks the format.
    """
    return _read(place, with_sums=False)[0]


def find_set(url: str) -> RemoteSet:
    """Read a set's manifest, and compare it with its ``SHA256SUMS``: ``set_id`` does not cover every byte of it.

    Raises:
        PatchSetError: either cannot be had, breaks the format, or they are not of one set.
    """
    place = open_place(url)
    manifest, sums = _read(place, with_sums=True)
    digest = hashlib.sha256(manifest.to_json()).hexdigest()
    folder = cache_home() / f"{manifest.set_id}-{digest[:16]}"
    return RemoteSet(place=place, manifest=manifest, sums=sums, folder=folder)


def fetch(url: str, on_bytes: Callable[[int], None] | None = None) -> Path:
    """The folder of the cache that has the set at ``url``, each of its files once proven by its digest.

    A ``file:`` URL is the local folder itself, as it stands.

    ``on_bytes`` hears of bytes that are there, fewer than none where some must be fetched again.

    Raises:
        PatchSetError: a file cannot be had, or is not the one that the manifest says; what is good is kept.
    """
    parsed = parse_url(url)
    return parsed if isinstance(parsed, Path) else fetch_set(find_set(parsed), on_bytes)


def fetch_set(found: RemoteSet, on_bytes: Callable[[int], None] | None = None, *, anew: bool = False) -> Path:
    """As ``fetch``, for a set that was found.

    With ``anew`` every file is read where it was published, also those that the cache has; a good one there stays.
    """
    folder = found.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            _fill(found, on_bytes or (lambda count: None), anew)
    except OSError as error:
        raise PatchSetError(
            f"{describe_os_error(error, folder)}, or set PATCHSET_CACHE to another folder, and run the same command "
            "again to go on"
        ) from error
    return folder


def _fill(found: RemoteSet, on_bytes: Callable[[int], None], anew: bool) -> None:
    folder, manifest = found.folder, found.manifest
    seen, before = read_seen(folder), read_seen(folder)
    heard = (lambda count: None) if anew else on_bytes
    try:
        missing = [file for file in set_files(manifest) if not is_there(folder, file, seen, heard)]
        remove_others(folder, [] if anew else missing)
        jobs: list[Job] = [partial(_bring, found, file, seen) for file in missing]
        if missing:
            require_room(folder, missing)
            note(f"{found.place.shown()}: fetching {sum(file.bytes for file in missing) / 1e6:,.1f} MB into {folder}")
        if anew:
            there = (file for file in set_files(manifest) if file not in missing)
            jobs += [partial(prove, found.place, file.name, file.bytes, file.sha256) for file in there]
            jobs.append(partial(prove_exports, found.place, manifest, found.sums))
        run_jobs(jobs, on_bytes)
    finally:
        if seen != before:
            note_seen(folder, dict(seen))  # a thread that is not yet stopped may add to it
    if not _is_finished(folder, manifest):
        write_manifest(folder, manifest)


def _bring(found: RemoteSet, file: SetFile, seen: Seen, channel: Channel) -> None:
    download(found.place, file.name, file.bytes, file.sha256, found.folder, channel)
    seen[file.name] = seen_now(found.folder, file)


def _is_finished(folder: Path, manifest: Manifest) -> bool:
    """Whether the manifest and all that follows from it is there and as it was written."""
    try:
        data = read_regular_file(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    except OSError:
        return False
    return is_plain(folder / MANIFEST_NAME) and data == manifest.to_json() and has_exports(folder, manifest)


def _read(place: Place, *, with_sums: bool) -> tuple[Manifest, dict[str, str]]:
    channel = alone()
    where = place.shown(MANIFEST_NAME)
    first: PatchSetError | None = None
    while True:
        data = read_whole(place, MANIFEST_NAME, MAX_MANIFEST_BYTES, channel)
        sums = read_whole(place, SUMS_NAME, MAX_SUMS_BYTES, channel) if with_sums else None
        try:
            if data.lstrip()[:1] == b"<":
                raise PatchSetError(f"{where}: is a web page, expected a manifest; check the URL")
            manifest = parse_manifest(data, where)
            if sums is None:
                return manifest, {}
            return manifest, _compared(manifest, data, sums, place.shown(SUMS_NAME))
        except PatchSetError as error:
            if first is not None:
                raise
            first = error
            channel.note(f"{error}: reading it once more")


def _compared(manifest: Manifest, data: bytes, sums: bytes, where: str) -> dict[str, str]:
    named = parse_sums(sums, where)
    expected = file_digests(manifest, derived=False) | {MANIFEST_NAME: hashlib.sha256(data).hexdigest()}
    for name, digest in expected.items():
        if named.get(name) != digest:
            raise PatchSetError(
                f"{where}: names {name} with {named.get(name) or 'no digest'}, the manifest there gives {digest}: "
                "one of them is damaged or of another set; tell whoever published it"
            )
    return named
