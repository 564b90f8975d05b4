"""Test Dask workers that build into a store, and claims. A claim reserves a store for one build."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from manifests import PatchSetError
from manifests.format.schema import Shard
from manifests.remote.claim import CLAIM_NAME, INVALID_CLAIM, UNCLAIMED, read_claim, write_claim
from manifests.remote.store import ShardStore
from manifests.remote.upload import stage_upload
from patchgen.errors import PatchgenError
from patchgen.pipeline import dask_backend
from patchgen.pipeline.dask_backend import DaskExecutor
from patchgen.pipeline.plan import make_plan
from patchgen.pipeline.shard import BuildContext, ShardTask
from patchgen.pipeline.store_output import StoreBuilder, StoreOutput
from patchgen.recipe import load_recipe
from patchgen.sources.photo import read_photo
from tests.helpers.stores import URL, parts, stored

distributed = pytest.importorskip("distributed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "cache"))


def new_context(folder: Path) -> BuildContext:
    return BuildContext(recipe=None, pyramids=(), size=8, seed=0, plan_id="0" * 64, folder=folder)  # type: ignore[arg-type]


def new_shard(task: ShardTask) -> Shard:
    table = {"name": task.table_name, "bytes": 1, "sha256": "1" * 64}
    return Shard(name=task.tar_name, n=1, first_index=0, bytes=1, sha256="1" * 64, parquet=table)


def work(builder: StoreBuilder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build a shard as a Dask worker does, but without Dask."""
    worker = SimpleNamespace(address="tcp://node7:1", local_directory=str(folder))
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    task = ShardTask(number=0, first_index=0, n=1)
    dask_backend._build_in_worker(task, new_context(folder), builder, dask_backend._versions())


def built(context: BuildContext, task: ShardTask, on_patches: Callable[[int], None]) -> Shard:
    for name in (task.tar_name, task.table_name):
        (context.folder / name).write_bytes(b"x")
    return new_shard(task)


def test_a_worker_that_cannot_write_is_named_and_leaves_nothing(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchgen.pipeline.shard_writer.build_shard", built)
    nowhere = StoreBuilder(url="s3://nobody-has-this/set", build_id="b", digests=None)
    told = "Dask's worker tcp://node7:1: s3://nobody-has-this/set/.*no such file or bucket"
    with pytest.raises(PatchgenError, match=told):
        work(nowhere, tmp_path, monkeypatch)
    here = StoreBuilder(url=URL, build_id="b", digests=None)
    write_claim(ShardStore(URL), "another")
    with pytest.raises(
        PatchgenError,
        match=f"tcp://node7:1: {URL}/{CLAIM_NAME}: the store is reserved for build another, expected build b",
    ):
        work(here, tmp_path, monkeypatch)
    write_claim(ShardStore(URL), "b")
    other = StoreBuilder(url=URL, build_id="b", digests={"patches-000000.tar": "2" * 64})
    with pytest.raises(PatchgenError, match=f"{URL}/patches-000000.tar: the built shard has sha256 1111"):
        work(other, tmp_path, monkeypatch)
    with pytest.raises(
        PatchgenError, match=r"tcp://node7:1: .*none.*: No such file or directory; solve this problem"
    ):
        work(here, tmp_path / "none", monkeypatch)
    assert set(stored(s3)) == {CLAIM_NAME}
    work(here, tmp_path, monkeypatch)
    assert set(stored(s3)) == {CLAIM_NAME, "patches-000000.tar"}
    assert not parts(tmp_path)


def test_no_password_stands_in_what_dask_logs(tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem()
    memory.store.clear()
    here = distributed.LocalCluster(
        n_workers=1, processes=False, dashboard_address=":0", local_directory=str(tmp_path)
    )
    with (
        stage_upload("memory://lab:hunter2@host/set", "b") as upload,
        here,
        distributed.Client(here) as client,
    ):
        output = StoreOutput(upload=upload)
        with pytest.raises(PatchgenError, match=r"worker inproc://.*: memory://host/set: this job is none") as error:
            list(
                DaskExecutor(client, Broken(output)).build_shards(
                    new_context(tmp_path), [ShardTask(number=0, first_index=0, n=1)], print
                )
            )
        logs = f"{client.get_worker_logs()} {client.get_scheduler_logs()} {error.value!r} {error.value.__cause__!r}"
    assert "Compute Failed" in logs and "hunter2" not in logs and "hunter2" not in repr(output)
    memory.store.clear()


class Broken(StoreOutput):
    """An output whose builder always fails."""

    def __init__(self, output: StoreOutput) -> None:
        super().__init__(upload=output.upload)

    def begin(self) -> "Failing":
        builder = super().begin()
        assert isinstance(builder, StoreBuilder) and builder.url == "memory://lab:hunter2@host/set"
        return Failing(url=builder.url, build_id=builder.build_id, digests=None)


class Failing(StoreBuilder):
    def __call__(self, context: BuildContext, task: ShardTask) -> NoReturn:
        raise PatchSetError(f"{ShardStore(self.url).display()}: this job is none")


def test_builds_of_one_set_are_one_build(photo_path: Path) -> None:
    def build_id(n: int, shard_size: int) -> str:
        photos, recipe = [read_photo(photo_path)], load_recipe("asano2023")
        return make_plan(photos=photos, recipe=recipe, n=n, size=32, seed=0, shard_size=shard_size).build_id

    assert build_id(200, 200) == build_id(200, 500) != build_id(200, 100)
    assert build_id(200, 100) != build_id(300, 100)


def test_claims_name_a_build(tmp_path: Path) -> None:
    store = ShardStore("memory://lab/claims")
    for build_id in (UNCLAIMED, "b", "0" * 64):
        write_claim(store, build_id)
        assert read_claim(store) == build_id


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"build": 7}', '{"build": "%s"}' % ("9" * 60_000), '{"build": ["b"]}', '{"build": null}'],
)
def test_a_damaged_claim_is_of_no_known_build(text: str) -> None:
    store = ShardStore("memory://lab/hostile")
    store.fs.pipe_file(store.path(CLAIM_NAME), text.encode())
    assert read_claim(store) == INVALID_CLAIM
