"""Upload a set to a store (a remote folder). Build the set in the cache, then send its files, the manifest last.

A claim file in the store names the build whose upload is not finished. The cache records the files that were sent, so
the same command continues an interrupted upload. After the sizes of all files in the store are checked, the folder in
the cache is removed. After ``Upload.begin``, workers of a cluster may send shards themselves.
"""

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from manifests.errors import PatchSetError
from manifests.export.dataset_card import CARD_NAME
from manifests.export.finalize import MAX_CARD_BYTES, file_digests
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, SHARD_FILE, File, Manifest
from manifests.patchset import open_folder
from manifests.remote.claim import CLAIM_NAME, INVALID_CLAIM, UNCLAIMED, claimed_message, read_claim, write_claim
from manifests.remote.download import WrongFileError, read_small_file, retry, verify_remote
from manifests.remote.fetch import cache_home, read_remote_manifest
from manifests.remote.store import ShardStore, TemporaryError
from manifests.remote.transfers import Channel, direct_channel, run_jobs
from manifests.support.console import note
from manifests.support.files import describe_os_error, hold_folder, is_plain, write_atomically
from manifests.support.system_files import entries
from manifests.verify import BUILD_MARKER

_FOLDER = "set"
_SENT_NAME = "sent.txt"
_SENT_LINE = re.compile(r"([0-9a-f]{64})  (.+)")

OnBytes = Callable[[int], None]
Listing = Mapping[str, int | None]  # what ``ShardStore.list`` returns


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A folder in which a set is built, and the store to which the set is sent."""

    store: ShardStore
    url: str = field(repr=False)
    home: Path  # folder in the cache with the set and the record of sent files
    build_id: str | None  # id of the build that creates the set, if it is already known
    existing: Manifest | None  # manifest of the finished set in the store
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Return the folder in which the set is built."""
        return self.home / _FOLDER

    @property
    def num_bytes(self) -> int:
        """Return the size of the finished set in ``folder`` in bytes."""
        return sum(file.bytes for file in self._local_files(open_folder(self.folder).manifest).values())

    def begin(self) -> None:
        """Write this build's claim file into the store. Call ``begin`` before shards are sent."""
        self._claim(self.build_id or UNCLAIMED, self.store.list())

    def record_sent(self, name: str, sha256: str) -> None:
        """Record in the cache that the file ``name`` was sent to the store. ``sha256`` is its digest."""
        with self._lock, (self.home / _SENT_NAME).open("a") as record:
            record.write(f"{sha256}  {name}\n")

    def read_sent(self) -> dict[str, str]:
        """Return a dict from the name of each sent file to its hex digest."""
        try:
            lines = (self.home / _SENT_NAME).read_text().split("\n")[:-1]  # the last line may be incomplete
        except FileNotFoundError:
            return {}
        return {match[2]: match[1] for match in map(_SENT_LINE.fullmatch, lines) if match}

    def send(self, on_bytes: OnBytes) -> None:
        """Send the finished set in ``folder`` to the store, and remove the folder.

        Skip files that were sent before. If the store already contains the finished set, verify the remote files, and
        send damaged files again. Call ``on_bytes`` with the number of bytes that were sent, skipped or verified.
        """
        manifest = open_folder(self.folder).manifest
        files, listing = self._local_files(manifest), self.store.list()
        digests = {name: file.sha256 for name, file in files.items()}
        existing = _finished_manifest(self.store, listing)
        if existing is None:
            self._claim(self.build_id or manifest.set_id, listing)
        else:
            self._require_same_set(manifest, existing)
            # Another version of PyArrow may have written other tables into the store. These tables stay.
            files = (files if existing == manifest else {}) | {file.name: file for file in existing.files}
            if CARD_NAME in listing:
                files.pop(CARD_NAME, None)  # the publisher may have edited the card in the store
        last = [files.pop(MANIFEST_NAME)] if MANIFEST_NAME in files else []
        for some in (list(files.values()), last):
            self._send_files(some, listing, digests if existing else None, on_bytes)
        if CLAIM_NAME in self.store.list():
            try:
                self.store.remove(CLAIM_NAME)
            except PatchSetError as error:  # the set is complete, and readers ignore the claim file
                note(f"{error}; the set is complete, so remove the file {CLAIM_NAME} by hand")
        shutil.rmtree(self.home)

    def _require_same_set(self, manifest: Manifest, existing: Manifest) -> None:
        if existing.set_id != manifest.set_id:
            what = f"the store contains the set {existing.set_id}, but this build created the set {manifest.set_id};"
        elif existing.sources != manifest.sources:
            what = "license, URL, attribution or name differ from the set in the store; use the store's values, or"
        else:
            return
        shutil.rmtree(self.folder)  # the next build must not continue this one
        raise PatchSetError(f"{self.store.display()}: {what} choose another --out")

    def _local_files(self, manifest: Manifest) -> dict[str, File]:
        """Return the shards and tables of the manifest, and the other files in ``folder``, by name."""
        files, digests = {file.name: file for file in manifest.files}, file_digests(manifest)
        for path in sorted(entries(self.folder)):
            if is_plain(path) and not path.name.startswith(".") and path.name not in files:
                digest = digests.get(path.name) or file_digest(path)
                files[path.name] = File(name=path.name, bytes=path.stat().st_size, sha256=digest)
        return files

    def _claim(self, build_id: str, listing: Listing) -> None:
        found = read_claim(self.store) if CLAIM_NAME in listing else UNCLAIMED
        if found == UNCLAIMED:
            write_claim(self.store, build_id)
        elif found != build_id:
            kept = f"and run the same command again; the built shards are kept in {self.folder}"
            raise PatchSetError(f"{claimed_message(self.store, found)} {kept}")

    def _send_files(
        self, files: list[File], listing: Listing, repair: Mapping[str, str] | None, on_bytes: OnBytes
    ) -> None:
        """Send the files that were not sent before, and check the sizes of ``files`` in the store.

        If ``repair`` is not None, verify the files of the finished set in the store, and send damaged files again.
        ``repair`` maps the names of local files to their digests.
        """
        jobs, sent = [], self.read_sent()
        for file in files:
            has_size = listing.get(file.name) == file.bytes
            was_sent = has_size and sent.get(file.name) == file.sha256
            if was_sent and (repair is None or not is_plain(self.folder / file.name)):
                on_bytes(file.bytes)
            else:
                jobs.append(partial(self._send_file, file, repair, has_size))
        run_jobs(jobs, on_bytes)
        listing = self.store.list()
        for file in files:
            if (found := listing.get(file.name)) != file.bytes:
                what = f"the uploaded file has {found or 0} bytes, expected {file.bytes}; run the same command again"
                raise PatchSetError(f"{self.store.display(file.name)}: {what}")

    def _send_file(self, file: File, repair: Mapping[str, str] | None, has_size: bool, channel: Channel) -> None:
        where = self.store.display(file.name)
        if repair is not None:
            if has_size:
                with contextlib.suppress(WrongFileError):
                    return verify_remote(self.store, file, channel)
            channel.note(f"{where}: the file is missing or damaged; sending it again")
        is_other = repair is not None and repair.get(file.name) != file.sha256  # of another version of PyArrow
        if is_other or not is_plain(self.folder / file.name):
            what = "the file is missing or damaged in the store, and the build has no copy of it"
            raise PatchSetError(f"{where}: {what}; run the same command again, or choose another --out")
        retry(partial(self.store.put, self.folder / file.name, file.name), channel)
        self.record_sent(file.name, file.sha256)
        return channel.count(file.bytes)


@contextlib.contextmanager
def stage_upload(url: str, build_id: str | None = None) -> Iterator[Upload]:
    """Check the store at ``url``, and yield an ``Upload``. Lock the store on this machine while the block runs.

    If the store contains a finished set and the local folder is empty, copy the manifest into the local folder. If
    the store contains files, but no valid manifest and no claim file, copy the table of the last shard. When a build
    of another set finds one of these copies in the local folder, the build ends with an error.
    """
    store = ShardStore(url)
    home = cache_home() / "out" / _home_name(url, store)
    folder = home / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(home):
            _remove_copies(folder)
            try:
                existing = _check_store(store, folder, build_id)
                if existing is not None and not entries(folder):
                    write_atomically(folder / MANIFEST_NAME, existing.to_json())
                yield Upload(store=store, url=url, home=home, build_id=build_id, existing=existing)
            finally:
                _remove_copies(folder)
                with contextlib.suppress(OSError):  # the folders are not empty if a command can continue
                    folder.rmdir()
                    home.rmdir()
    except BlockingIOError as error:
        raise PatchSetError(f"{store.display()}: another build writes to this store; wait until it ends") from error
    except OSError as error:
        advice = "and run the same command again to continue"
        raise PatchSetError(f"{describe_os_error(error, folder)} {advice}") from error


def _home_name(url: str, store: ShardStore) -> str:
    """Return the name of a store's folder in the cache: a hash of protocol, folder, user, host and endpoint."""
    user, at, host = urlsplit(url).netloc.rpartition("@")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    words = (str(store.fs.protocol), store.root, user.partition(":")[0] + at + host, endpoint)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


def _check_store(store: ShardStore, folder: Path, build_id: str | None) -> Manifest | None:
    """Return the manifest if a store has a finished set. Else check the claim file, copy a table, or test writing."""
    listing = store.list()
    existing = _finished_manifest(store, listing)
    if existing is not None:
        return existing
    if CLAIM_NAME in listing:
        found = read_claim(store)
        if found not in (UNCLAIMED, build_id) and not entries(folder):  # files in the folder prove more than an id
            if build_id is not None or found == INVALID_CLAIM:
                raise PatchSetError(claimed_message(store, found))
            note(f"{store.display()}: the upload of build {found} is not finished; only this build can continue it")
    elif listing:
        _copy_last_table(store, folder, listing)
    else:  # missing permissions must be found before a long build
        write_claim(store, UNCLAIMED)
        with contextlib.suppress(PatchSetError):  # the claim of the build will replace it
            store.remove(CLAIM_NAME)
    return None


def _copy_last_table(store: ShardStore, folder: Path, listing: Listing) -> None:
    """Copy the table of the last shard and the card from a store without a valid manifest into ``folder``.

    If ``folder`` already has the same table, copy nothing. Otherwise delete all files in ``folder`` first.
    """
    last = max(filter(SHARD_FILE.fullmatch, listing), default=MANIFEST_NAME)
    table = Path(last).with_suffix(".parquet").name
    if table not in listing:
        what = f"the folder contains files ({', '.join(sorted(listing)[:3])}), but no valid {MANIFEST_NAME} and no"
        raise PatchSetError(f"{store.display()}: {what} table of the last shard; choose another --out")
    data = read_small_file(store, table, listing[table] or 0, direct_channel())
    if is_plain(folder / table) and (folder / table).read_bytes() == data:
        return  # an earlier run of this build was interrupted
    shutil.rmtree(folder)
    folder.mkdir()
    (folder.parent / _SENT_NAME).unlink(missing_ok=True)
    write_atomically(folder / table, data)
    if CARD_NAME in listing:  # the publisher may have edited the card
        write_atomically(folder / CARD_NAME, read_small_file(store, CARD_NAME, MAX_CARD_BYTES, direct_channel()))


def _finished_manifest(store: ShardStore, listing: Listing) -> Manifest | None:
    """Return the manifest of the finished set in a store. Return None if the manifest is missing or damaged."""
    if MANIFEST_NAME not in listing:
        return None
    try:
        return read_remote_manifest(store)
    except TemporaryError:
        raise
    except PatchSetError:  # for example, an interrupted upload has sent a part of the manifest
        return None


def _remove_copies(folder: Path) -> None:
    """Remove the files that ``stage_upload`` copied, if no build has begun in the folder."""
    names = {path.name for path in entries(folder)} if folder.is_dir() else set()
    has_begun = any(name.startswith(BUILD_MARKER) for name in names)
    if names == {MANIFEST_NAME} or (names and MANIFEST_NAME not in names and not has_begun):
        shutil.rmtree(folder)
        folder.mkdir()
