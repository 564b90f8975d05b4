"""Where the tars of a build go: the build's folder, or a store. Its tables always come into the folder."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.support.console import counting, progress_bar
from manifests.support.files import PART_PREFIX, describe_os_error, write_atomically
from manifests.support.processes import usable_cores
from patchgen.errors import PatchgenError
from patchgen.pipeline.output_dir import PLAN_NAME
from patchgen.pipeline.shard import BuildContext, BuiltShard, ShardTask, finished_shard, recorded_shard

if TYPE_CHECKING:
    from manifests.format.schema import Shard
    from manifests.remote.store import ShardStore
    from manifests.remote.transfers import Channel
    from manifests.remote.upload import Listing, Upload

MAX_THREADS = 8  # most threads that hash shards; a disk cannot feed more

ShardBuilder = Callable[[BuildContext, ShardTask], BuiltShard]
"""Builds a shard and puts its tar where it belongs. It is pickled, and called on other machines."""


class LocalOutput:
    """The build's own folder, which every worker sees."""

    def find_finished(self, context: BuildContext, tasks: Sequence[ShardTask]) -> "dict[int, Shard]":
        """Return the entries of this build's shards that are there and intact, by their numbers."""
        shards = {}
        pool = ThreadPoolExecutor(min(usable_cores(), MAX_THREADS))  # hashing releases the interpreter lock
        try:
            found = pool.map(partial(finished_shard, context.folder, context.plan_id), tasks)
            with progress_bar("checking shards", len(tasks)) as update:
                for done, (task, shard) in enumerate(zip(tasks, found, strict=True), 1):
                    if shard is not None:
                        shards[task.number] = shard
                    update(done)
        finally:
            pool.shutdown(cancel_futures=True)
        return shards

    def begin(self) -> ShardBuilder:
        """Prepare for new shards, and return what builds one and puts its tar there."""
        return _build_in_folder

    def keep(self, context: BuildContext, task: ShardTask, built: BuiltShard) -> None:
        """Record, where the build runs, that a shard is finished. Here its files are in the folder already."""


def _build_in_folder(context: BuildContext, task: ShardTask) -> BuiltShard:
    from patchgen.pipeline.shard_writer import build_shard  # noqa: PLC0415 - see ``process_pool``

    if not (context.folder / PLAN_NAME).exists():
        raise PatchgenError(f"does not see {context.folder}; give an --out that every worker sees")
    return BuiltShard(shard=build_shard(context, task, lambda count: None))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreOutput(LocalOutput):
    """The store of an upload. Workers send their tars there; the tables come into the upload's folder."""

    upload: "Upload"

    def find_finished(self, context: BuildContext, tasks: Sequence[ShardTask]) -> "dict[int, Shard]":
        """Return the shards that were sent; of a set that is finished in the store, also those that are intact."""
        shards = self._find_sent(context, tasks)
        existing = self.upload.existing
        if existing is None:
            return shards
        from manifests.remote.transfers import run_jobs  # noqa: PLC0415

        missing = [task for task in tasks if task.number not in shards]
        unknown = [existing.shards[task.number] for task in missing if task.number < len(existing.shards)]
        total = sum(shard.bytes + shard.parquet.bytes for shard in unknown)
        with progress_bar("checking shards (bytes)", total) as update:
            listing = self.upload.store.list()
            run_jobs([partial(self._recover_shard, shard, listing) for shard in unknown], counting(update))
        return shards | self._find_sent(context, missing)

    def _recover_shard(self, shard: "Shard", listing: "Listing", channel: "Channel") -> None:
        """Read a shard in the store; if it is intact, record it as sent and download its table."""
        from manifests.remote.download import SetFile, WrongFileError, download, verify_remote  # noqa: PLC0415

        upload = self.upload
        parts = (shard, shard.parquet)
        tar, table = (SetFile(name=part.name, num_bytes=part.bytes, sha256=part.sha256) for part in parts)
        try:
            if any(listing.get(file.name) != file.num_bytes for file in (tar, table)):
                raise WrongFileError(shard.name)
            download(upload.store, table, upload.folder, channel)
            verify_remote(upload.store, tar, channel)
        except WrongFileError:
            where = upload.store.display(shard.name)
            channel.note(f"{where}: it or its table is missing or damaged; building it again")
            return
        for file in (table, tar):
            upload.record_sent(file.name, file.sha256)

    def _find_sent(self, context: BuildContext, tasks: Sequence[ShardTask]) -> "dict[int, Shard]":
        """Return shards whose tars were sent, or are in the folder, where a build without a cluster leaves them."""
        sent, listing = self.upload.read_sent(), self.upload.store.list()
        shards = {}
        for task in tasks:
            shard = recorded_shard(context.folder, context.plan_id, task)
            found = sent.get(task.tar_name), listing.get(task.tar_name)
            if shard is None or found != (shard.sha256, shard.bytes):
                shard = finished_shard(context.folder, context.plan_id, task)
            if shard is not None:
                shards[task.number] = shard
        return shards

    def begin(self) -> ShardBuilder:
        """Claim the store, and return what builds and sends shards."""
        self.upload.begin()
        existing = self.upload.existing
        digests = None if existing is None else {shard.name: shard.sha256 for shard in existing.shards}
        return StoreBuilder(url=self.upload.url, build_id=self.upload.build_id, digests=digests)

    def keep(self, context: BuildContext, task: ShardTask, built: BuiltShard) -> None:
        """Write the table into the folder, then record that the tar was sent."""
        assert built.table is not None  # noqa: S101 - of a ``StoreBuilder``
        (context.folder / task.tar_name).unlink(missing_ok=True)  # a damaged one of an earlier build here
        write_atomically(context.folder / task.table_name, built.table)
        self.upload.record_sent(task.tar_name, built.shard.sha256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreBuilder:
    """Builds a shard in a temporary folder and sends its tar.

    Its representation, which Dask logs, excludes the URL, because that may contain a password.
    """

    url: str = dataclasses.field(repr=False)
    build_id: str | None
    digests: Mapping[str, str] | None = dataclasses.field(repr=False)  # of a finished set there: only these are sent

    def __call__(self, context: BuildContext, task: ShardTask) -> BuiltShard:
        """Build a shard and send its tar, unless the store is not claimed for this build any more."""
        from distributed import get_worker  # noqa: PLC0415 - an extra

        from manifests.remote.download import retry  # noqa: PLC0415 - most sets are local
        from manifests.remote.store import ShardStore  # noqa: PLC0415
        from manifests.remote.transfers import direct_channel  # noqa: PLC0415
        from patchgen.pipeline.shard_writer import build_shard  # noqa: PLC0415 - see ``process_pool``

        store = ShardStore(self.url)
        self._require_claim(store)  # before the build as well as before sending: this worker may lack credentials
        parent = Path(get_worker().local_directory)  # which Dask empties even after the worker was killed
        try:
            with tempfile.TemporaryDirectory(prefix=PART_PREFIX, dir=parent) as name:
                folder = Path(name)
                shard = build_shard(dataclasses.replace(context, folder=folder), task, lambda count: None)
                if self.digests is not None and self.digests.get(shard.name) != shard.sha256:
                    raise PatchgenError(
                        f"{store.display(shard.name)}: built here its sha256 is {shard.sha256}, not that of the "
                        "finished set there; choose another --out"
                    )
                self._require_claim(store)
                retry(partial(store.put, folder / shard.name, shard.name), direct_channel())
                return BuiltShard(shard=shard, table=(folder / task.table_name).read_bytes())
        except OSError as error:
            raise PatchgenError(f"{describe_os_error(error, parent)} and run the same command again") from error

    def _require_claim(self, store: "ShardStore") -> None:
        """Check that no other build began to send to the store meanwhile."""
        from manifests.remote.claim import CLAIM_NAME, read_claim  # noqa: PLC0415

        if (found := read_claim(store)) != self.build_id:
            raise PatchgenError(
                f"{store.display(CLAIM_NAME)}: is claimed for the build {found} now; choose another --out"
            )
