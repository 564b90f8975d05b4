"""A set written elsewhere: built in a folder of the cache, then sent, its manifest last of all.

While files are sent, a marker lies beside them. What was sent is noted in the cache, so that the same command goes on
where it was interrupted; the folder there is removed only when every size was read back.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from manifests.cached import SetFile, cache_home, set_files
from manifests.card import CARD_NAME
from manifests.digest import file_digest
from manifests.errors import PassingError, PatchSetError
from manifests.files import describe_os_error, hold_folder, is_plain, write_atomically
from manifests.finish import file_digests
from manifests.patchset import MANIFEST_NAME, open_patchset
from manifests.remote import read_remote_manifest
from manifests.schema import Manifest
from manifests.sending import MARKER_NAME, Sending, read_marker, send_marker
from manifests.store import StorePlace
from manifests.terminal import note

_FOLDER = "set"
_SHOWN = 3


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

        Of a set that is finished there every file is read, and sent again where it is damaged.

        ``on_bytes`` hears of bytes that are there, whether sent now or before.

        Raises:
            PatchSetError: the place has another set, or cannot be written; run again to go on.
        """
        manifest = open_patchset(self.folder).manifest
        names = self.place.names()
        ours = file_digests(manifest)
        ours |= {path.name: file_digest(path) for path in _plain_files(self.folder) if path.name not in ours}
        sending = Sending(place=self.place, folder=self.folder, home=self.home)
        files = {name: sending.local(name, digest) for name, digest in ours.items()}
        theirs = _finished(self.place, names)
        if theirs is None:
            self._mark(manifest, names)
        else:
            files = self._held(manifest, theirs, names, files)
        last = {MANIFEST_NAME: files.pop(MANIFEST_NAME)} if MANIFEST_NAME in files else {}
        for some in (files, last):
            if theirs is None:
                sending.send(some, names, on_bytes)
            else:
                sending.mend(some, ours, names, on_bytes)
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

    def _mark(self, manifest: Manifest, names: dict[str, int | None]) -> None:
        """Leave the marker of this set, where there is none of another."""
        found = read_marker(self.place) if MARKER_NAME in names else None
        if found not in (None, manifest.set_id):
            raise PatchSetError(
                f"{self.place.shown(MARKER_NAME)}: belongs to an unfinished upload of the set {found}, this build "
                f"made {manifest.set_id}; choose another --out, or remove what lies there and run the same command "
                f"again: what was built is kept in {self.folder}"
            )
        if found is None:
            send_marker(self.place, self.home, manifest.set_id)


@contextlib.contextmanager
def staged(url: str, set_id: str | None = None) -> Iterator[Publication]:
    """A publication at ``url``, which was looked at; nobody else on this machine sends there meanwhile.

    Where a finished set lies there, its manifest is put into an empty folder, so that another build is refused as it
    would be in a local folder. ``set_id`` is the set's that will be built, if it is known.

    Raises:
        PatchSetError: something else lies there, it cannot be looked at or written, or the cache cannot be written.
    """
    place = StorePlace(url)
    home = cache_home() / "out" / _key(url, place)
    folder = home / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(home):
            _remove_known(folder)
            try:
                yield Publication(place=place, home=home, known=_look(place, home, set_id))
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


def _look(place: StorePlace, home: Path, set_id: str | None) -> bool:
    """Whether the manifest of a set there now lies in the folder to build in, alone."""
    names, folder = place.names(), home / _FOLDER
    theirs = _finished(place, names)
    if theirs is not None:
        if any(folder.iterdir()):
            return False
        write_atomically(folder / MANIFEST_NAME, theirs.to_json())
        return True
    if MARKER_NAME in names:
        found = read_marker(place)
        if set_id is not None and found not in (None, set_id):
            raise PatchSetError(
                f"{place.shown(MARKER_NAME)}: belongs to an unfinished upload of the set {found}, this build makes "
                f"{set_id}; choose another --out, or remove what lies there"
            )
        if found is not None and not (home / MARKER_NAME).exists():
            note(f"{place.shown()}: holds an unfinished upload of the set {found}; only that set can be sent there")
    elif names:
        listed = ", ".join(sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise PatchSetError(
            f"{place.shown()}: holds files that no build wrote ({listed}), expected an empty or new place; "
            "choose another --out"
        )
    else:
        _try_to_write(place, home)
    return False


def _try_to_write(place: StorePlace, home: Path) -> None:
    """Write a marker of no set and remove it: what cannot be written is better known before a build than after it."""
    try:
        send_marker(place, home, None)
    finally:
        (home / MARKER_NAME).unlink(missing_ok=True)
    with contextlib.suppress(PatchSetError):  # the build's own marker will take its place
        place.remove(MARKER_NAME)


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
    if folder.is_dir() and [path.name for path in folder.iterdir()] == [MANIFEST_NAME]:
        (folder / MANIFEST_NAME).unlink()


def _plain_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_plain(path) and not path.name.startswith("."))
