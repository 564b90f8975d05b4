"""Build a set for a store, such as S3. Each worker of a Dask cluster uploads the tars that it built.

The tables are written into the local folder of the upload. This module is imported only if --out is a URL.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from manifests.format.schema import Shard
from manifests.remote.claim import CLAIM_NAME, read_claim
from manifests.remote.download import WrongFileError, download, retry, verify_remote
from manifests.remote.store import ShardStore
from manifests.remote.transfers import Channel, direct_channel, run_jobs
from manifests.remote.upload import Listing, Upload
from manifests.support.console import counting, progress_bar
from manifests.support.files import PART_PREFIX, describe_os_error, write_atomically
from patchgen.errors import PatchgenError
from patchgen.pipeline import shard_writer
from patchgen.pipeline.dask_backend import BuiltShard, LocalOutput, ShardBuilder
from patchgen.pipeline.shard import BuildContext, ShardTask, finished_shard, recorded_shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreOutput(LocalOutput):
    """The output of a build whose workers upload the tars to the store of ``upload``."""

    upload: Upload

    def find_finished(self, context: BuildContext, tasks: Sequence[ShardTask]) -> dict[int, Shard]:
        """Return, by shard number, the uploaded shards and the intact shards of a finished set in the store."""
        shards = self._find_sent(context, tasks)
        existing = self.upload.existing
        if existing is None:
            return shards
        missing = [task for task in tasks if task.number not in shards]
        unknown = [existing.shards[task.number] for task in missing if task.number < len(existing.shards)]
        total = sum(shard.bytes + shard.parquet.bytes for shard in unknown)
        with progress_bar("checking shards (bytes)", total) as update:
            listing = self.upload.store.list()
            run_jobs([partial(self._recover_shard, shard, listing) for shard in unknown], counting(update))
        return shards | self._find_sent(context, missing)

    def _recover_shard(self, shard: Shard, listing: Listing, channel: Channel) -> None:
        """Read a shard in the store. If the shard is intact, download its table and record the shard as uploaded."""
        try:
            if any(listing.get(file.name) != file.bytes for file in (shard, shard.parquet)):
                raise WrongFileError(shard.name)
            download(self.upload.store, shard.parquet, self.upload.folder, channel)
            verify_remote(self.upload.store, shard, channel)
        except WrongFileError:
            where = self.upload.store.display(shard.name)
            channel.note(f"{where}: the shard or its table is missing or damaged; the shard is built again")
            return
        for file in (shard.parquet, shard):
            self.upload.record_sent(file.name, file.sha256)

    def _find_sent(self, context: BuildContext, tasks: Sequence[ShardTask]) -> dict[int, Shard]:
        """Return, by shard number, the shards with an uploaded tar, and the intact shards in the local folder."""
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
        """Reserve the store for this build. Return the function that builds and uploads a shard."""
        self.upload.begin()
        existing = self.upload.existing
        digests = None if existing is None else {shard.name: shard.sha256 for shard in existing.shards}
        return StoreBuilder(url=self.upload.url, build_id=self.upload.build_id, digests=digests)

    def keep(self, context: BuildContext, task: ShardTask, built: BuiltShard) -> None:
        """Write the table into the folder, then record that the tar was uploaded."""
        assert built.table is not None  # noqa: S101 - of a ``StoreBuilder``
        tar = context.folder / task.tar_name
        tar.unlink(missing_ok=True)  # a damaged tar of an earlier build without a cluster
        write_atomically(context.folder / task.table_name, built.table)
        self.upload.record_sent(task.tar_name, built.shard.sha256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreBuilder:
    """Builds a shard in a temporary folder of a worker, and uploads the tar of the shard.

    The ``repr`` of this object omits the URL, which may contain a password, because Dask logs the ``repr``.
    """

    url: str = dataclasses.field(repr=False)
    build_id: str | None
    # SHA-256 of the tars of a finished set in the store, by names
    digests: Mapping[str, str] | None = dataclasses.field(repr=False)

    def __call__(self, context: BuildContext, task: ShardTask) -> BuiltShard:
        """Build a shard and upload its tar. Raise an error if another build reserved the store."""
        from distributed import get_worker  # noqa: PLC0415 - an extra

        store = ShardStore(self.url)
        self._require_claim(store)  # also before the build, because this worker may lack credentials
        parent = Path(get_worker().local_directory)  # Dask empties this folder, even after the worker was killed
        try:
            with tempfile.TemporaryDirectory(prefix=PART_PREFIX, dir=parent) as name:
                folder = Path(name)
                inside = dataclasses.replace(context, folder=folder)
                shard = shard_writer.build_shard(inside, task, lambda count: None)
                if self.digests is not None and self.digests.get(shard.name) != shard.sha256:
                    raise PatchgenError(
                        f"{store.display(shard.name)}: the built shard has sha256 {shard.sha256}, but the finished "
                        f"set in the store declares {self.digests.get(shard.name)}; choose another --out"
                    )
                self._require_claim(store)
                retry(partial(store.put, folder / shard.name, shard.name), direct_channel())
                return BuiltShard(shard=shard, table=(folder / task.table_name).read_bytes())
        except OSError as error:
            raise PatchgenError(f"{describe_os_error(error, parent)} and run the same command again") from error

    def _require_claim(self, store: ShardStore) -> None:
        if (found := read_claim(store)) != self.build_id:
            what = f"the store is reserved for build {found}, expected build {self.build_id}"
            raise PatchgenError(f"{store.display(CLAIM_NAME)}: {what}; choose another --out")
