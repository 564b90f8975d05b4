"""Upload a set to a store: it is built in a folder of the cache, then sent, its manifest last.

While files are sent, a claim file in the store says whose upload it is. The cache records which files were sent, so
that the same command resumes an interrupted upload. The folder in the cache is removed when the size of every file in
the store was checked. Workers of a cluster may send shards themselves after ``Upload.begin``.
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
from manifests.export.finalize import file_digests
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, Manifest
from manifests.patchset import open_folder
from manifests.remote.cache import cache_home, set_files
from manifests.remote.claim import CLAIM_NAME, INVALID_CLAIM, UNCLAIMED, claimed_message, read_claim, write_claim
from manifests.remote.download import SetFile, WrongFileError, retry, verify_remote
from manifests.remote.fetch import read_remote_manifest
from manifests.remote.store import ShardStore, TemporaryError
from manifests.remote.transfers import Channel, run_jobs
from manifests.support.console import note
from manifests.support.files import describe_os_error, hold_folder, is_plain, write_atomically
from manifests.support.system_files import entries

_FOLDER = "set"
_SENT_NAME = "sent.txt"
_SENT_LINE = re.compile(r"([0-9a-f]{64})  (.+)")

OnBytes = Callable[[int], None]
Listing = Mapping[str, int | None]  # what ``ShardStore.list`` returns


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A folder in which a set is built, and the store it is sent to."""

    store: ShardStore
    url: str = field(repr=False)
    home: Path
    build_id: str | None  # of the build that makes the set, if it is known before
    existing: Manifest | None  # of the finished set in the store, if there is one
    is_fresh: bool  # whether ``folder`` is empty, but for the manifest of that set
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """The folder to build in."""
        return self.home / _FOLDER

    @property
    def num_bytes(self) -> int:
        """Size of the finished set in ``folder``."""
        return sum(file.num_bytes for file in self._local_files(open_folder(self.folder).manifest).values())

    def begin(self) -> None:
        """Claim the store, before shards are sent there."""
        self._claim(self.build_id or UNCLAIMED, self.store.list())

    def record_sent(self, name: str, sha256: str) -> None:
        """Record that a file with this digest is in the store."""
        with self._lock, (self.home / _SENT_NAME).open("a") as record:
            record.write(f"{sha256}  {name}\n")

    def read_sent(self) -> dict[str, str]:
        """Return the names of the files that were sent, with their digests."""
        try:
            lines = (self.home / _SENT_NAME).read_text().split("\n")[:-1]  # the last may be torn
        except FileNotFoundError:
            return {}
        return {match[2]: match[1] for match in map(_SENT_LINE.fullmatch, lines) if match}

    def send(self, on_bytes: OnBytes) -> None:
        """Send the finished set in ``folder`` to the store, and remove it here.

        Files that were sent before are skipped. If the set is finished in the store, every file there is read, and
        sent again if it is damaged. ``on_bytes`` is called with the bytes that are in the store, new or not.
        """
        manifest = open_folder(self.folder).manifest
        files, listing = self._local_files(manifest), self.store.list()
        digests = {name: file.sha256 for name, file in files.items()}
        existing = _finished_manifest(self.store, listing)
        if existing is None:
            self._claim(self.build_id or manifest.set_id, listing)
        else:
            self._require_same_set(manifest, existing)
            # Another version of PyArrow may have written the set there: then its tables and other files stay.
            files = (files if existing == manifest else {}) | {file.name: file for file in set_files(existing)}
            if CARD_NAME in listing:
                files.pop(CARD_NAME, None)  # it may have been edited there
        last = [files.pop(MANIFEST_NAME)] if MANIFEST_NAME in files else []
        for some in (list(files.values()), last):
            self._send_files(some, listing, digests if existing else None, on_bytes)
        if CLAIM_NAME in self.store.list():
            try:
                self.store.remove(CLAIM_NAME)
            except PatchSetError as error:  # the set is complete, and readers ignore the file
                note(f"{error}: {CLAIM_NAME} stays there; remove it")
        shutil.rmtree(self.home)

    def _require_same_set(self, manifest: Manifest, existing: Manifest) -> None:
        if existing.set_id != manifest.set_id:
            what = f"holds the set {existing.set_id}, this build made {manifest.set_id};"
        elif existing.sources != manifest.sources:
            what = "holds this set with another license, URL, attribution or name of a photo; give those, or"
        else:
            return
        shutil.rmtree(self.folder)  # else the next build would take it for its own beginning
        raise PatchSetError(f"{self.store.display()}: {what} choose another --out")

    def _local_files(self, manifest: Manifest) -> dict[str, SetFile]:
        """Return the files of the set: shards and tables, sent or not, and all else in the folder."""
        files, digests = {file.name: file for file in set_files(manifest)}, file_digests(manifest)
        for path in sorted(entries(self.folder)):
            if is_plain(path) and not path.name.startswith(".") and path.name not in files:
                digest = digests.get(path.name) or file_digest(path)
                files[path.name] = SetFile(name=path.name, num_bytes=path.stat().st_size, sha256=digest)
        return files

    def _claim(self, build_id: str, listing: Listing) -> None:
        found = read_claim(self.store) if CLAIM_NAME in listing else UNCLAIMED
        if found == UNCLAIMED:
            write_claim(self.store, build_id)
        elif found != build_id:
            kept = f"and run the same command again: what was built is kept in {self.folder}"
            raise PatchSetError(f"{claimed_message(self.store, found, build_id)} {kept}")

    def _send_files(
        self, files: list[SetFile], listing: Listing, repair: Mapping[str, str] | None, on_bytes: OnBytes
    ) -> None:
        """Send files that were not sent before. ``repair``: the set is finished in the store, and these are the
        digests of the files here; each file there is verified."""
        jobs, sent = [], self.read_sent()
        for file in files:
            has_size = listing.get(file.name) == file.num_bytes
            was_sent = has_size and sent.get(file.name) == file.sha256
            if was_sent and (repair is None or not is_plain(self.folder / file.name)):
                on_bytes(file.num_bytes)
            else:
                jobs.append(partial(self._send_file, file, repair, has_size))
        run_jobs(jobs, on_bytes)
        listing = self.store.list()
        for file in files:
            if (found := listing.get(file.name)) != file.num_bytes:
                what = f"{found} bytes after sending, expected {file.num_bytes}; run the same command again"
                raise PatchSetError(f"{self.store.display(file.name)}: {what}")

    def _send_file(self, file: SetFile, repair: Mapping[str, str] | None, has_size: bool, channel: Channel) -> None:
        where = self.store.display(file.name)
        if repair is not None:
            if has_size:
                with contextlib.suppress(WrongFileError):
                    return verify_remote(self.store, file, channel)
            if repair.get(file.name) != file.sha256:
                what = "missing or damaged, and written by another version of PyArrow than this one"
                raise PatchSetError(f"{where}: {what}; repair it with that one, or choose another --out")
            channel.note(f"{where}: missing or damaged; sending it again")
        if not is_plain(self.folder / file.name):
            what = "was sent, and is missing or damaged now"
            raise PatchSetError(f"{where}: {what}; run the same command again to build it again")
        retry(partial(self.store.put, self.folder / file.name, file.name), channel)
        self.record_sent(file.name, file.sha256)
        return channel.count(file.num_bytes)


@contextlib.contextmanager
def stage_upload(url: str, build_id: str | None = None) -> Iterator[Upload]:
    """Check the store at ``url`` and yield an ``Upload`` to it; other uploads of this machine to it are locked out.

    If the store holds a finished set, its manifest is put into the empty folder, so that a build of another set is
    refused as it would be in a local folder.
    """
    store = ShardStore(url)
    home = cache_home() / "out" / _home_name(url, store)
    folder = home / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(home):
            _remove_lone_manifest(folder)
            try:
                existing = _check_store(store, folder, build_id)
                is_fresh = existing is not None and not entries(folder)
                if existing is not None and is_fresh:
                    write_atomically(folder / MANIFEST_NAME, existing.to_json())
                yield Upload(store=store, url=url, home=home, build_id=build_id, existing=existing, is_fresh=is_fresh)
            finally:
                _remove_lone_manifest(folder)
                with contextlib.suppress(OSError):  # they contain what an interrupted command resumes
                    folder.rmdir()
                    home.rmdir()
    except BlockingIOError as error:
        raise PatchSetError(f"{store.display()}: another build is sending there; wait for it to end") from error
    except OSError as error:
        raise PatchSetError(f"{describe_os_error(error, folder)} and run the same command again to go on") from error


def _home_name(url: str, store: ShardStore) -> str:
    """Return a name for a store: a hash of its protocol, folder, user, host and endpoint."""
    user, at, host = urlsplit(url).netloc.rpartition("@")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    words = (str(store.fs.protocol), store.root, user.partition(":")[0] + at + host, endpoint)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


def _check_store(store: ShardStore, folder: Path, build_id: str | None) -> Manifest | None:
    """Check that a store is empty, or holds this upload or a finished set, whose manifest is returned."""
    listing = store.list()
    existing = _finished_manifest(store, listing)
    if existing is not None:
        return existing
    if CLAIM_NAME in listing:
        found = read_claim(store)
        if found not in (UNCLAIMED, build_id) and not entries(folder):  # what lies in the folder says more than an id
            if build_id is not None or found == INVALID_CLAIM:
                raise PatchSetError(claimed_message(store, found, build_id))
            note(f"{store.display()}: holds an unfinished upload of the build {found}; only that can be sent there")
    elif listing:
        what = f"holds files that no build wrote ({', '.join(sorted(listing)[:3])})"
        raise PatchSetError(f"{store.display()}: {what}, expected an empty or new folder; choose another --out")
    else:  # missing permissions are to be found before a long build and not after it
        write_claim(store, UNCLAIMED)
        with contextlib.suppress(PatchSetError):  # the claim of the build will replace it
            store.remove(CLAIM_NAME)
    return None


def _finished_manifest(store: ShardStore, listing: Listing) -> Manifest | None:
    """Return the manifest of the finished set in a store; None if there is none, or it was torn while it was sent."""
    if MANIFEST_NAME not in listing:
        return None
    try:
        return read_remote_manifest(store)
    except TemporaryError:
        raise
    except PatchSetError:
        if CLAIM_NAME not in listing:
            raise
        return None


def _remove_lone_manifest(folder: Path) -> None:
    """Remove a manifest that is alone in the folder: it was put there to be compared with."""
    if folder.is_dir() and [path.name for path in entries(folder)] == [MANIFEST_NAME]:
        (folder / MANIFEST_NAME).unlink()
