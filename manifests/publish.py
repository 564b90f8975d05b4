"""A set written elsewhere: built in a folder of the cache, then sent, its manifest last of all.

While files are sent, a marker lies beside them. What was sent is noted in the cache, so that the same command goes on
where it was interrupted; the folder there is removed only when every size was read back.
"""

import contextlib
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from manifests.cached import cache_home
from manifests.card import CARD_NAME
from manifests.digest import file_digest
from manifests.download import read_whole, wait_again
from manifests.errors import PassingError, PatchSetError
from manifests.files import describe_os_error, hold_folder, is_plain, write_atomically
from manifests.finish import file_digests
from manifests.patchset import MANIFEST_NAME, open_patchset
from manifests.remote import read_remote_manifest
from manifests.schema import Manifest
from manifests.store import StorePlace
from manifests.terminal import note
from manifests.transfers import Channel, Job, alone, run_jobs
from manifests.verify import BUILD_MARKER

MARKER_NAME = f"{BUILD_MARKER}-upload.json"
"""Lies in the place while a set is sent there; readers ignore it."""
_FOLDER, _SENT = "set", "sent.txt"
_MAX_MARKER_BYTES = 1 << 16
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SHOWN = 3


class _OtherSetError(PatchSetError):
    """The place is another set's: what was built for it is of no use."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A folder to build a set in, and the place that it is sent to then."""

    place: StorePlace
    home: Path
    known: bool
    """Whether ``folder`` has, but for what is built, the manifest of a set in the place, and nothing else."""

    @property
    def folder(self) -> Path:
        """Where to build."""
        return self.home / _FOLDER

    @property
    def bytes(self) -> int:
        """Bytes of the finished set."""
        return sum(path.stat().st_size for path in _plain_files(self.folder))

    def send(self, on_bytes: Callable[[int], None]) -> None:
        """Send what the place lacks of the finished set in ``folder``, which is then removed.

        ``on_bytes`` hears of bytes that are there, whether sent now or before.

        Raises:
            PatchSetError: the place has another set, or cannot be written; run again to go on.
        """
        manifest = open_patchset(self.folder).manifest
        names = self.place.names()
        digests = file_digests(manifest)
        digests |= {p.name: file_digest(p) for p in _plain_files(self.folder) if p.name not in digests}
        try:
            if MANIFEST_NAME in names:
                digests = self._lacking(manifest, names, digests)
            else:
                self._mark(manifest, names)
        except _OtherSetError:
            shutil.rmtree(self.folder)  # else the next build there would take it for its own beginning
            raise
        manifests = {MANIFEST_NAME: last} if (last := digests.pop(MANIFEST_NAME, None)) else {}
        for files in (digests, manifests):
            self._send_files(files, names, on_bytes)
            self._require_sizes(files)
        if MARKER_NAME in self.place.names():
            try:
                self.place.remove(MARKER_NAME)
            except PatchSetError as error:  # the set is whole, and readers ignore it
                note(f"{error}: {MARKER_NAME} stays there, remove it")
        shutil.rmtree(self.home)

    def _lacking(self, manifest: Manifest, names: dict[str, int | None], digests: dict[str, str]) -> dict[str, str]:
        """What must be sent to a place with a finished set: nothing, or what is missing there or torn.

        Raises:
            PatchSetError: it is another set, or one with other texts or tables.
        """
        theirs = read_remote_manifest(self.place)
        if theirs.set_id != manifest.set_id:
            raise _OtherSetError(
                f"{self.place.shown()}: holds the set {theirs.set_id}, this build made {manifest.set_id}; "
                "choose another --out"
            )
        if theirs.sources != manifest.sources:
            raise _OtherSetError(
                f"{self.place.shown()}: holds this set with another licence, url, attribution or name of a photo; "
                "give those, or choose another --out"
            )
        sizes = {shard.name: shard.bytes for shard in theirs.shards}
        sizes |= {shard.parquet.name: shard.parquet.bytes for shard in theirs.shards}
        lacking = {name for name, size in sizes.items() if names.get(name) != size}
        if lacking and theirs.shards != manifest.shards:
            raise _OtherSetError(
                f"{self.place.shown()}: lacks {min(lacking)}, and its tables were written by another version of "
                "PyArrow; mend it with that one, or choose another --out"
            )
        if theirs == manifest:  # then all files beside are of one making too
            lacking |= {name for name in digests if names.get(name) != (self.folder / name).stat().st_size}
        if CARD_NAME in names:
            lacking.discard(CARD_NAME)  # somebody may have edited it there
        return {name: digest for name, digest in digests.items() if name in lacking}

    def _mark(self, manifest: Manifest, names: dict[str, int | None]) -> None:
        """Leave the marker of this set, where there is none of another."""
        if MARKER_NAME in names:
            where = self.place.shown(MARKER_NAME)
            data = read_whole(self.place, MARKER_NAME, _MAX_MARKER_BYTES, alone())
            if (found := _marked(data)) != manifest.set_id:
                raise _OtherSetError(
                    f"{where}: belongs to an unfinished upload of the set {found}, this build made "
                    f"{manifest.set_id}; choose another --out, or remove what lies there"
                )
            return
        marker = self.home / MARKER_NAME
        write_atomically(marker, json.dumps({"set_id": manifest.set_id}).encode())
        self.place.make()
        _send(self.place, marker, MARKER_NAME, alone())

    def _send_files(
        self, digests: dict[str, str], names: dict[str, int | None], on_bytes: Callable[[int], None]
    ) -> None:
        sent = self._sent()
        lock = threading.Lock()
        jobs: list[Job] = []
        for name, digest in digests.items():
            path = self.folder / name
            size = path.stat().st_size
            if sent.get(name) == digest and names.get(name) == size:
                on_bytes(size)
            else:
                jobs.append(partial(self._send_one, path, size, digest, lock))
        run_jobs(jobs, on_bytes)

    def _send_one(self, path: Path, size: int, digest: str, lock: threading.Lock, channel: Channel) -> None:
        _send(self.place, path, path.name, channel)
        with lock, (self.home / _SENT).open("a") as file:
            file.write(f"{digest}  {path.name}\n")
        channel.count(size)

    def _sent(self) -> dict[str, str]:
        """Names with the digests of what was sent under them; a torn line is none."""
        try:
            lines = (self.home / _SENT).read_text().split("\n")[:-1]
        except FileNotFoundError:
            return {}
        return {match[2]: match[1] for match in map(_LINE.fullmatch, lines) if match}

    def _require_sizes(self, digests: dict[str, str]) -> None:
        names = self.place.names()
        for name in digests:
            size = (self.folder / name).stat().st_size
            if names.get(name) != size:
                raise PatchSetError(
                    f"{self.place.shown(name)}: {names.get(name)} bytes after sending, expected {size}; run the same "
                    "command again"
                )


@contextlib.contextmanager
def staged(url: str) -> Iterator[Publication]:
    """A publication at ``url``, which was looked at; nobody else on this machine sends there meanwhile.

    Where a finished set lies there, its manifest is put into an empty folder, so that another build is refused as it
    would be in a local folder.

    Raises:
        PatchSetError: something else lies there, it cannot be looked at, or the cache cannot be written.
    """
    place = StorePlace(url)
    key = hashlib.sha256(f"{place.fs.protocol} {place.root}".encode()).hexdigest()[:32]
    home = cache_home() / "out" / key
    folder = home / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(home):
            _remove_known(folder)
            try:
                yield Publication(place=place, home=home, known=_look(place, folder))
            finally:
                _remove_known(folder)
                with contextlib.suppress(OSError):  # they hold what an interrupted command goes on from
                    folder.rmdir()
                    home.rmdir()
    except BlockingIOError as error:
        raise PatchSetError(f"{place.shown()}: another build is sending there; wait for it to end") from error
    except OSError as error:
        raise PatchSetError(f"{describe_os_error(error, folder)} and run the same command again to go on") from error


def _look(place: StorePlace, folder: Path) -> bool:
    """Whether the manifest of a set there now lies in ``folder``, alone."""
    names = place.names()
    if MANIFEST_NAME in names:
        theirs = read_remote_manifest(place)
        if not any(folder.iterdir()):
            write_atomically(folder / MANIFEST_NAME, theirs.to_json())
            return True
    elif names and MARKER_NAME not in names:
        listed = ", ".join(sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise PatchSetError(
            f"{place.shown()}: holds files that no build wrote ({listed}), expected an empty or new place; "
            "choose another --out"
        )
    return False


def _remove_known(folder: Path) -> None:
    """Remove a manifest that lies alone: that of a set in the place, put there to be compared with."""
    if folder.is_dir() and [path.name for path in folder.iterdir()] == [MANIFEST_NAME]:
        (folder / MANIFEST_NAME).unlink()


def _plain_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_plain(path) and not path.name.startswith("."))


def _marked(data: bytes) -> str:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return "?"
    return str(value.get("set_id")) if isinstance(value, dict) else "?"


def _send(place: StorePlace, source: Path, name: str, channel: Channel) -> None:
    """Write a file there, tried again where that may help."""
    failures = 0
    while True:
        channel.check()
        try:
            place.send(source, name)
            return
        except PassingError as error:
            failures += 1
            wait_again(failures, error, channel)
