"""Files of a built set on their way into a store: sent, noted, and looked at again."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from manifests.errors import PassingError, PatchSetError
from manifests.format.schema import Shard
from manifests.remote.cache import SetFile
from manifests.remote.download import WrongFileError, download, prove, wait_again
from manifests.remote.store import StorePlace
from manifests.remote.transfers import Channel, Job, run_jobs
from manifests.support.files import is_plain

_SENT = "sent.txt"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, kw_only=True)
class Sending:
    """A folder with a set, the place that its files go to, and where it is noted which of them are there.

    Tars that others sent are noted there too, and need not be in the folder.
    """

    place: StorePlace
    folder: Path
    home: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def send(
        self, files: Mapping[str, SetFile], names: Mapping[str, int | None], on_bytes: Callable[[int], None]
    ) -> None:
        """Send what was not sent before, as notes and sizes in the place (``names``) tell.

        Raises:
            PatchSetError: a file cannot be sent.
        """
        sent = self.sent()
        jobs: list[Job] = []
        for name, file in files.items():
            if sent.get(name) == file.sha256 and names.get(name) == file.bytes:
                on_bytes(file.bytes)
            else:
                jobs.append(partial(self._send_one, file))
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

        ``ours`` are the digests of the set that was built. What is not in the folder is in the place, as noted.

        Raises:
            PatchSetError: a file cannot be read or sent, or is damaged there and another one here.
        """
        sent = self.sent()
        jobs: list[Job] = []
        for name, file in files.items():
            noted = sent.get(name) == file.sha256 and names.get(name) == file.bytes
            if noted and not is_plain(self.folder / name):
                on_bytes(file.bytes)
            else:
                jobs.append(partial(self._mend_one, file, ours, names))
        run_jobs(jobs, on_bytes)
        self._require_sizes(files)

    def recover(self, shards: Sequence[Shard], on_bytes: Callable[[int], None]) -> None:
        """Read ``shards`` of a finished set in the place; of those that are whole the tables come into the folder.

        Only these are noted as being there.

        Raises:
            PatchSetError: one cannot be read.
        """
        names = self.place.names()
        run_jobs([partial(self._recover_one, shard, names) for shard in shards], on_bytes)

    def _recover_one(self, shard: Shard, names: Mapping[str, int | None], channel: Channel) -> None:
        table = shard.parquet
        try:
            for part in (table, shard):
                if names.get(part.name) != part.bytes:
                    raise WrongFileError(part.name)
            download(self.place, table.name, table.bytes, table.sha256, self.folder, channel)
            prove(self.place, shard.name, shard.bytes, shard.sha256, channel)
        except WrongFileError:
            channel.note(f"{self.place.shown(shard.name)}: it or its table is missing or damaged; building it again")
            return
        for part in (table, shard):
            self.note(part.name, part.sha256)

    def _mend_one(
        self,
        file: SetFile,
        ours: Mapping[str, str],
        names: Mapping[str, int | None],
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
        self._send_one(file, channel)
        return None

    def _send_one(self, file: SetFile, channel: Channel) -> None:
        if not is_plain(self.folder / file.name):
            raise PatchSetError(
                f"{self.place.shown(file.name)}: was there and is missing or damaged now; run the same command again "
                "to build it again"
            )
        send_file(self.place, self.folder / file.name, file.name, channel)
        self.note(file.name, file.sha256)
        channel.count(file.bytes)

    def note(self, name: str, sha256: str) -> None:
        """Note that a file is in the place, with these bytes.

        Raises:
            OSError: the note cannot be written.
        """
        with self._lock, (self.home / _SENT).open("a") as notes:
            notes.write(f"{sha256}  {name}\n")

    def sent(self) -> dict[str, str]:
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
