"""Shards that whoever builds them sends to a store: their tars never come to the machine that the build runs on."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.remote.marker import MARKER_NAME, Marker, read_marker
from manifests.remote.sending import send_file
from manifests.remote.store import StorePlace
from manifests.remote.transfers import alone
from manifests.remote.upload import Publication
from manifests.support.console import counting, progress_bar
from manifests.support.files import PART_PREFIX, describe_os_error, write_atomically
from patchgen.errors import PatchgenError
from patchgen.pipeline.process_pool import Entries
from patchgen.pipeline.shard import Job, Task, finished_shard, recorded_shard
from patchgen.pipeline.shard_store import Builder, Made


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreShelf:
    """The place of a publication, in whose folder the tables are kept."""

    publication: Publication

    def finished(self, job: Job, tasks: Sequence[Task]) -> Entries:
        """See ``Shelf``. What was noted as sent is believed; where a set lies finished, the rest of it is read."""
        entries = self._noted(job, tasks)
        theirs = self.publication.theirs
        if theirs is None:
            return entries
        missing = [task for task in tasks if task.number not in entries]
        shards = [theirs.shards[task.number] for task in missing if task.number < len(theirs.shards)]
        total = sum(shard.bytes + shard.parquet.bytes for shard in shards)
        with progress_bar("checking shards (bytes)", total) as update:
            self.publication.sending.recover(shards, counting(update))
        return entries | self._noted(job, missing)

    def _noted(self, job: Job, tasks: Sequence[Task]) -> Entries:
        """Shards whose tars were sent, or lie in the folder, as a build without a cluster leaves them there."""
        sent, names = self.publication.sending.sent(), self.publication.place.names()
        entries: Entries = {}
        for task in tasks:
            entry = recorded_shard(job.folder, job.plan_id, task)
            there = sent.get(task.tar_name), names.get(task.tar_name)
            if entry is None or there != (entry["sha256"], entry["bytes"]):
                entry = finished_shard(job.folder, job.plan_id, task)
            if entry is not None:
                entries[task.number] = entry
        return entries

    def begin(self) -> Builder:
        """See ``Shelf``: the place is marked first."""
        publication, theirs = self.publication, self.publication.theirs
        publication.begin()
        wanted = None if theirs is None else {shard.name: shard.sha256 for shard in theirs.shards}
        return _Sender(url=publication.url, owner=publication.owner, wanted=wanted)

    def keep(self, job: Job, task: Task, made: Made) -> None:
        """See ``Shelf``: the table comes into the folder, and then it is noted that the tar was sent."""
        if made.table is None:
            raise TypeError(f"{task.tar_name}: was built without the bytes of its table")
        (job.folder / task.tar_name).unlink(missing_ok=True)  # a damaged one of an earlier build here
        write_atomically(job.folder / task.table_name, made.table)
        self.publication.sending.note(task.tar_name, made.entry["sha256"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sender:
    """Builds a shard in a temporary folder and sends its tar.

    A URL may hold a password, and Dask writes what it runs into its log.
    """

    url: str = dataclasses.field(repr=False)
    owner: Marker
    wanted: Mapping[str, str] | None = dataclasses.field(repr=False)
    """Digests of the tars that may be sent, where a finished set lies there."""

    def __call__(self, job: Job, task: Task, on_patches: Callable[[int], None]) -> Made:
        """See ``Builder``.

        Raises:
            PatchSetError: the place cannot be read or written.
            PatchgenError: it is not this build's any more, the tar is not that of the set there, or this machine's
                disk fails.
        """
        from patchgen.pipeline.shard_writer import build_shard  # noqa: PLC0415 - see ``pool``

        place = StorePlace(self.url)
        self._require_place(place)  # before the work of building, too: keys may be missing here
        scratch = _scratch()
        try:
            with tempfile.TemporaryDirectory(prefix=PART_PREFIX, dir=scratch) as name:
                here = dataclasses.replace(job, folder=Path(name))
                entry = build_shard(here, task, on_patches)
                if self.wanted is not None and self.wanted.get(task.tar_name) != entry["sha256"]:
                    raise PatchgenError(
                        f"{place.shown(task.tar_name)}: made here its sha256 is {entry['sha256']}, which is not the "
                        "finished set's there; choose another --out"
                    )
                on_patches(0)
                self._require_place(place)
                send_file(place, here.folder / task.tar_name, task.tar_name, alone())
                return Made(entry=entry, table=(here.folder / task.table_name).read_bytes())
        except OSError as error:
            raise PatchgenError(f"{describe_os_error(error, scratch)} and run the same command again") from error

    def _require_place(self, place: StorePlace) -> None:
        """A build that was stopped must not go on sending where another one may have begun."""
        try:
            found = read_marker(place)
        except PatchSetError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise PatchgenError(
                f"{error}; or another build of this set was finished there: run the same command again"
            ) from error
        if not found.matches(self.owner):
            raise PatchgenError(f"{place.shown(MARKER_NAME)}: is of {found} by now; choose another --out")


def _scratch() -> Path:
    """A worker's own folder: Dask removes it, with all in it, also of a worker that was killed."""
    from distributed import get_worker  # noqa: PLC0415 - an extra

    try:
        return Path(get_worker().local_directory)
    except ValueError:  # no worker calls
        return Path(tempfile.gettempdir())
