"""A set written elsewhere: built in a folder of the cache, then sent, its manifest last of all.

While files are sent, a marker lies beside them. What was sent is noted in the cache, so that the same command goes on
where it was interrupted; the folder there is removed only when every size was read back. Tars may also be sent by
whoever built them, once ``begin`` has left the marker.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from manifests.errors import PassingError, PatchSetError
from manifests.export.dataset_card import CARD_NAME
from manifests.export.finalize import file_digests
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, Manifest
from manifests.patchset import open_folder
from manifests.remote.cache import SetFile, cache_home, set_files
from manifests.remote.fetch import read_remote_manifest
from manifests.remote.marker import MARKER_NAME, Marker, is_taken, read_marker, send_marker, try_to_write
from manifests.remote.sending import Sending
from manifests.remote.store import StorePlace
from manifests.support.console import note
from manifests.support.files import describe_os_error, hold_folder, is_plain, write_atomically
from manifests.support.system_files import entries

_FOLDER = "set"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A folder to build a set in, and the place that it is sent to then."""

    place: StorePlace
    url: str = field(repr=False)
    home: Path
    owner: Marker
    """What was known of the set, or of its build, before it was built."""
    theirs: Manifest | None
    """Of the finished set in the place, if there is one."""
    known: bool
    """Whether ``folder`` has, but for what is built, the manifest of that set, and nothing else."""

    @property
    def folder(self) -> Path:
        """Where to build."""
        return self.home / _FOLDER

    @property
    def bytes(self) -> int:
        """Bytes of the finished set."""
        return sum(file.bytes for file in self._files(open_folder(self.folder).manifest).values())

    @property
    def sending(self) -> Sending:
        """What sends the folder's files."""
        return Sending(place=self.place, folder=self.folder, home=self.home)

    def begin(self) -> None:
        """Leave the marker of ``owner`` in the place, before anything is sent there that no manifest names yet.

        Raises:
            PatchSetError: it is another upload's, or cannot be written.
        """
        self._mark(self.owner, self.place.names())

    def send(self, on_bytes: Callable[[int], None]) -> None:
        """Send what the place lacks of the finished set in ``folder``, which is then removed.

        Of a set that is finished there every file is read, and sent again where it is damaged.

        ``on_bytes`` hears of bytes that are there, whether sent now or before.

        Raises:
            PatchSetError: the place has another set, or cannot be written; run again to go on.
        """
        manifest = open_folder(self.folder).manifest
        names = self.place.names()
        files = self._files(manifest)
        ours = {name: file.sha256 for name, file in files.items()}
        theirs = _finished(self.place, names)
        if theirs is None:
            self._mark(Marker(set_id=manifest.set_id, build=self.owner.build), names)
        else:
            files = self._held(manifest, theirs, names, files)
        last = {MANIFEST_NAME: files.pop(MANIFEST_NAME)} if MANIFEST_NAME in files else {}
        for some in (files, last):
            if theirs is None:
                self.sending.send(some, names, on_bytes)
            else:
                self.sending.mend(some, ours, names, on_bytes)
        if MARKER_NAME in self.place.names():
            try:
                self.place.remove(MARKER_NAME)
            except PatchSetError as error:  # the set is whole, and readers ignore it
                note(f"{error}: {MARKER_NAME} stays there, remove it")
        shutil.rmtree(self.home)

    def _held(
        self, manifest: Manifest, theirs: Manifest, names: dict[str, int | None], files: dict[str, SetFile]
    ) -> dict[str, SetFile]:
        """What a place with a finished set must hold.

        Raises:
            PatchSetError: it is another set, or one with other texts.
        """
        what = ""
        if theirs.set_id != manifest.set_id:
            what = f"holds the set {theirs.set_id}, this build made {manifest.set_id}; choose another --out"
        elif theirs.sources != manifest.sources:
            what = (
                "holds this set with another licence, url, attribution or name of a photo; give those, or choose "
                "another --out"
            )
        if what:
            shutil.rmtree(self.folder)  # else the next build there would take it for its own beginning
            raise PatchSetError(f"{self.place.shown()}: {what}")
        # Of one making are also the files beside, but for the card, which somebody may have edited there.
        beside = files if theirs == manifest else {}
        held = beside | {file.name: file for file in set_files(theirs)}
        return {name: file for name, file in held.items() if name != CARD_NAME or name not in names}

    def _files(self, manifest: Manifest) -> dict[str, SetFile]:
        """The finished set as it shall be in the place: its shards and tables, and what else lies in the folder."""
        files, digests = {file.name: file for file in set_files(manifest)}, file_digests(manifest)
        for path in _plain_files(self.folder):
            if path.name not in files:
                digest = digests.get(path.name) or file_digest(path)
                files[path.name] = SetFile(name=path.name, bytes=path.stat().st_size, sha256=digest)
        return files

    def _mark(self, mine: Marker, names: dict[str, int | None]) -> None:
        """Leave a marker, where there is none of another upload."""
        found = read_marker(self.place) if MARKER_NAME in names else Marker()
        if found.free:
            send_marker(self.place, self.home, mine)
        elif not found.matches(mine):
            again = f" and run the same command again: what was built is kept in {self.folder}"
            raise PatchSetError(is_taken(self.place, found, mine) + again)


@contextlib.contextmanager
def staged(url: str, owner: Marker | None = None) -> Iterator[Publication]:
    """A publication at ``url``, which was looked at; nobody else on this machine sends there meanwhile.

    Where a finished set lies there, its manifest is put into an empty folder, so that another build is refused as it
    would be in a local folder. ``owner`` says what is known of the set that will be built.

    Raises:
        PatchSetError: something else lies there, it cannot be looked at or written, or the cache cannot be written.
    """
    place, owner = StorePlace(url), owner or Marker()
    home = cache_home() / "out" / _key(url, place)
    folder = home / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(home):
            _remove_known(folder)
            try:
                theirs = _look(place, home, owner)
                known = theirs is not None and not entries(folder)
                if theirs is not None:
                    owner = replace(owner, set_id=theirs.set_id)
                if theirs is not None and known:
                    write_atomically(folder / MANIFEST_NAME, theirs.to_json())
                yield Publication(place=place, url=url, home=home, owner=owner, theirs=theirs, known=known)
            finally:
                _remove_known(folder)
                with contextlib.suppress(OSError):  # they hold what an interrupted command goes on from
                    folder.rmdir()
                    home.rmdir()
    except BlockingIOError as error:
        raise PatchSetError(f"{place.shown()}: another build is sending there; wait for it to end") from error
    except OSError as error:
        raise PatchSetError(f"{describe_os_error(error, folder)} and run the same command again to go on") from error


def _key(url: str, place: StorePlace) -> str:
    """A name for the place: its folder, and on which machine that is."""
    user, at, host = urlsplit(url).netloc.rpartition("@")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    words = (str(place.fs.protocol), place.root, user.partition(":")[0] + at + host, endpoint)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


def _look(place: StorePlace, home: Path, owner: Marker) -> Manifest | None:
    """The manifest of a finished set there, if it holds one; it may hold nothing but that or what was begun."""
    names = place.names()
    theirs = _finished(place, names)
    if theirs is not None:
        return theirs
    if MARKER_NAME in names:
        found = read_marker(place)
        begun_here = (home / MARKER_NAME).exists()
        told_here = begun_here and bool(entries(home / _FOLDER))  # what lies there says more than an id
        if found.differs(owner) and not told_here:
            raise PatchSetError(is_taken(place, found, owner))
        if not (found.free or found.matches(owner) or begun_here):
            note(f"{place.shown()}: holds an unfinished upload of {found}; nothing else can be sent there")
    elif names:
        listed = ", ".join(sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise PatchSetError(
            f"{place.shown()}: holds files that no build wrote ({listed}), expected an empty or new place; "
            "choose another --out"
        )
    else:
        try_to_write(place, home)
    return None


def _finished(place: StorePlace, names: dict[str, int | None]) -> Manifest | None:
    """The manifest of a finished set there; None where there is none, or one that was torn while it was sent.

    Raises:
        PatchSetError: it cannot be had, or breaks the format and no marker says that it is being sent.
    """
    if MANIFEST_NAME not in names:
        return None
    try:
        return read_remote_manifest(place)
    except PassingError:
        raise
    except PatchSetError:
        if MARKER_NAME not in names:
            raise
        return None


def _remove_known(folder: Path) -> None:
    """Remove a manifest that lies alone: that of a set in the place, put there to be compared with."""
    if folder.is_dir() and [path.name for path in entries(folder)] == [MANIFEST_NAME]:
        (folder / MANIFEST_NAME).unlink()


def _plain_files(folder: Path) -> list[Path]:
    return sorted(path for path in entries(folder) if is_plain(path) and not path.name.startswith("."))
