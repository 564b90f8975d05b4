"""Files of a built set on their way into a store: sent, noted, and looked at again."""

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from manifests.cached import SetFile
from manifests.download import WrongFileError, prove, read_whole, wait_again
from manifests.errors import PassingError, PatchSetError
from manifests.files import write_atomically
from manifests.store import StorePlace
from manifests.transfers import Channel, Job, alone, run_jobs
from manifests.verify import BUILD_MARKER

MARKER_NAME = f"{BUILD_MARKER}-upload.json"
"""Lies in the place while a set is sent there; readers ignore it."""
_SENT = "sent.txt"
_MAX_MARKER_BYTES = 1 << 16
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, kw_only=True)
class Sending:
    """A folder with a set, the place that its files go to, and where it is noted which of them are there."""

    place: StorePlace
    folder: Path
    home: Path

    def local(self, name: str, sha256: str) -> SetFile:
        """A file of the folder, as it shall be in the place."""
        return SetFile(name=name, bytes=(self.folder / name).stat().st_size, sha256=sha256)

    def send(
        self, files: Mapping[str, SetFile], names: Mapping[str, int | None], on_bytes: Callable[[int], None]
    ) -> None:
        """Send what was not sent before, as notes and sizes in the place (``names``) tell.

        Raises:
            PatchSetError: a file cannot be sent.
        """
        sent, lock = self._sent(), threading.Lock()
        jobs: list[Job] = []
        for name, file in files.items():
            if sent.get(name) == file.sha256 and names.get(name) == file.bytes:
                on_bytes(file.bytes)
            else:
                jobs.append(partial(self._send_one, file, lock))
        run_jobs(jobs, on_bytes)
        self._require_sizes(files)

    def mend(
        self,
        files: Mapping[str, SetFile],
        ours: Mapping[str, str],
        names: Mapping[str, int | None],
        on_bytes: Callable[[int], None],
    ) -> None:
        """Read ``files`` in the place, and send again those that are missing there or have other bytes.

        ``ours`` are the digests of the folder's files.

        Raises:
            PatchSetError: a file cannot be read or sent, or is damaged there and another one here.
        """
        lock = threading.Lock()
        run_jobs([partial(self._mend_one, file, ours, names, lock) for file in files.values()], on_bytes)
        self._require_sizes(files)

    def _mend_one(
        self,
        file: SetFile,
        ours: Mapping[str, str],
        names: Mapping[str, int | None],
        lock: threading.Lock,
        channel: Channel,
    ) -> None:
        where = self.place.shown(file.name)
        if names.get(file.name) == file.bytes:
            try:
                return prove(self.place, file.name, file.bytes, file.sha256, channel)
            except WrongFileError:
                pass
        if ours.get(file.name) != file.sha256:
            raise PatchSetError(
                f"{where}: missing or damaged, and written by another version of PyArrow than this one; mend it with "
                "that one, or choose another --out"
            )
        channel.note(f"{where}: missing or damaged; sending it again")
        self._send_one(file, lock, channel)
        return None

    def _send_one(self, file: SetFile, lock: threading.Lock, channel: Channel) -> None:
        send_file(self.place, self.folder / file.name, file.name, channel)
        with lock, (self.home / _SENT).open("a") as notes:
            notes.write(f"{file.sha256}  {file.name}\n")
        channel.count(file.bytes)

    def _sent(self) -> dict[str, str]:
        """Names with the digests of what was sent under them; a torn line is none."""
        try:
            lines = (self.home / _SENT).read_text().split("\n")[:-1]
        except FileNotFoundError:
            return {}
        return {match[2]: match[1] for match in map(_LINE.fullmatch, lines) if match}

    def _require_sizes(self, files: Mapping[str, SetFile]) -> None:
        names = self.place.names()
        for name, file in files.items():
            if names.get(name) != file.bytes:
                raise PatchSetError(
                    f"{self.place.shown(name)}: {names.get(name)} bytes after sending, expected {file.bytes}; run "
                    "the same command again"
                )


def send_marker(place: StorePlace, home: Path, set_id: str | None) -> None:
    """Leave a marker in the place, of a set or of none; a copy of it in ``home``.

    Raises:
        PatchSetError: it cannot be written.
    """
    write_atomically(home / MARKER_NAME, json.dumps({"set_id": set_id}).encode())
    place.make()
    send_file(place, home / MARKER_NAME, MARKER_NAME, alone())


def read_marker(place: StorePlace) -> str | None:
    """Which set is being sent to the place, as its marker says; ``?`` where that says nothing.

    Raises:
        PatchSetError: it cannot be read.
    """
    data = read_whole(place, MARKER_NAME, _MAX_MARKER_BYTES, alone())
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return "?"
    found = value.get("set_id", "?") if isinstance(value, dict) else "?"
    return None if found is None else str(found)


def send_file(place: StorePlace, source: Path, name: str, channel: Channel) -> None:
    """Write a file there, tried again where that may help.

    Raises:
        PatchSetError: it cannot be.
    """
    failures = 0
    while True:
        channel.check()
        try:
            place.send(source, name)
            return
        except PassingError as error:
            failures += 1
            wait_again(failures, error, channel)
