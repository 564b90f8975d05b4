"""What a worker does when it builds for a store, and whose upload a marker says it is."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from manifests import PatchSetError
from manifests.remote.marker import MARKER_NAME, Marker, read_marker, send_marker
from manifests.remote.store import StorePlace
from manifests.remote.upload import staged
from patchgen.errors import PatchgenError
from patchgen.pipeline import dask_backend
from patchgen.pipeline.plan import make_plan
from patchgen.pipeline.remote_store import StoreShelf, _Sender
from patchgen.pipeline.shard import Job, Task
from patchgen.pipeline.shard_store import Builder, FolderShelf, Made
from patchgen.recipe import load_recipe
from patchgen.sources.photo import read_photo
from tests.helpers.stores import URL, parts, stored, wait_until

distributed = pytest.importorskip("distributed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSET_CACHE", str(tmp_path / "cache"))


def work(sender: _Sender, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker does, without Dask."""
    monkeypatch.setattr(dask_backend, "_address", lambda: "tcp://node7:1")
    monkeypatch.setattr(dask_backend, "_stop_if_cancelled", lambda count: None)
    job = Job(recipe=None, pyramids=(), size=8, seed=0, plan_id="0" * 64, folder=folder)  # type: ignore[arg-type]
    dask_backend._work(Task(number=0, first_index=0, n=1), job, sender, dask_backend._versions())


def built(job: Job, task: Task, on_patches: Callable[[int], None]) -> dict[str, Any]:
    for name in (task.tar_name, task.table_name):
        (job.folder / name).write_bytes(b"x")
    return {"sha256": "1" * 64}


def test_a_worker_that_cannot_write_is_named_and_leaves_nothing(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchgen.pipeline.shard_writer.build_shard", built)
    monkeypatch.setattr("patchgen.pipeline.remote_store._scratch", lambda: tmp_path)
    owner = Marker(build="b")
    nowhere = _Sender(url="s3://nobody-has-this/set", owner=owner, wanted=None)
    told = (
        "Dask's worker tcp://node7:1: s3://nobody-has-this/set/.*no such file or bucket.*; or another build of this"
    )
    with pytest.raises(PatchgenError, match=told):
        work(nowhere, tmp_path, monkeypatch)
    here = _Sender(url=URL, owner=owner, wanted=None)
    send_marker(StorePlace(URL), tmp_path, Marker(build="another"))
    with pytest.raises(PatchgenError, match=f"tcp://node7:1: {URL}/{MARKER_NAME}: is of the build another by now"):
        work(here, tmp_path, monkeypatch)
    send_marker(StorePlace(URL), tmp_path, owner)
    other = _Sender(url=URL, owner=owner, wanted={"patches-000000.tar": "2" * 64})
    with pytest.raises(PatchgenError, match=f"{URL}/patches-000000.tar: made here its sha256 is 1111"):
        work(other, tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("patchgen.pipeline.remote_store._scratch", lambda: tmp_path / "none")
        with pytest.raises(
            PatchgenError, match=r"tcp://node7:1: .*none.*: No such file or directory; put that right"
        ):
            work(here, tmp_path, monkeypatch)
    assert set(stored(s3)) == {MARKER_NAME}
    work(here, tmp_path, monkeypatch)
    assert set(stored(s3)) == {MARKER_NAME, "patches-000000.tar"}
    assert not parts(tmp_path)


def test_no_password_stands_in_what_dask_logs(tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem()
    memory.store.clear()
    job = Job(recipe=None, pyramids=(), size=8, seed=0, plan_id="0" * 64, folder=tmp_path)  # type: ignore[arg-type]
    here = distributed.LocalCluster(
        n_workers=1, processes=False, dashboard_address=":0", local_directory=str(tmp_path)
    )
    with (
        staged("memory://lab:hunter2@host/set", Marker(build="b")) as publication,
        here,
        distributed.Client(here) as client,
    ):
        shelf = StoreShelf(publication=publication)
        with pytest.raises(PatchgenError, match=r"worker inproc://.*: memory://host/set: this job is none") as error:
            dask_backend._build(client, Broken(shelf), job, [Task(number=0, first_index=0, n=1)], print, print)
        logs = f"{client.get_worker_logs()} {client.get_scheduler_logs()} {error.value!r} {error.value.__cause__!r}"
    assert "Compute Failed" in logs and "hunter2" not in logs and "hunter2" not in repr(shelf)
    memory.store.clear()


class Broken(StoreShelf):
    """A shelf whose builder is as a store's, and fails."""

    def __init__(self, shelf: StoreShelf) -> None:
        super().__init__(publication=shelf.publication)

    def begin(self) -> "Failing":
        sender = super().begin()
        assert isinstance(sender, _Sender) and sender.url == "memory://lab:hunter2@host/set"
        return Failing(url=sender.url, owner=sender.owner, wanted=None)


class Failing(_Sender):
    def __call__(self, job: Job, task: Task, on_patches: Callable[[int], None]) -> NoReturn:
        raise PatchSetError(f"{StorePlace(self.url).shown()}: this job is none")


class Slow(FolderShelf):
    """The second shard takes a minute, unless nobody wants it any more; the first waits for it to begin."""

    def begin(self) -> Builder:
        return Slow._build

    @staticmethod
    def _build(job: Job, task: Task, on_patches: Callable[[int], None]) -> Made:
        began, ended = job.folder / "began", job.folder / "ended"
        if task.number == 0:
            wait_until(began.exists)
            return Made(entry={})
        began.touch()
        try:
            for _ in range(6000):
                on_patches(0)
                time.sleep(0.01)
        finally:
            ended.touch()
        return Made(entry={})


def test_a_worker_gives_up_a_shard_that_nobody_wants_any_more(tmp_path: Path) -> None:
    def stop(number: int, entry: dict[str, Any]) -> NoReturn:
        raise PatchgenError("stopped")

    job = Job(recipe=None, pyramids=(), size=8, seed=0, plan_id="0" * 64, folder=tmp_path)  # type: ignore[arg-type]
    tasks = [Task(number=number, first_index=number, n=1) for number in range(2)]
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as here,
        distributed.Client(here) as client,
    ):
        with pytest.raises(PatchgenError, match="stopped"):
            dask_backend._build(client, Slow(), job, tasks, lambda count: None, stop)
        wait_until((tmp_path / "ended").exists, 20)


def test_builds_of_one_set_are_one_build(photo_path: Path) -> None:
    def build_id(n: int, shard_size: int) -> str:
        photos, recipe = [read_photo(photo_path)], load_recipe("asano2023")
        return make_plan(photos=photos, recipe=recipe, n=n, size=32, seed=0, shard_size=shard_size).build_id

    assert build_id(200, 200) == build_id(200, 500) != build_id(200, 100)
    assert build_id(200, 100) != build_id(300, 100)


def test_markers_say_whose_upload_it_is(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    place = StorePlace("memory://lab/markers")
    for marker in (Marker(), Marker(set_id="s"), Marker(build="b"), Marker(set_id="s", build="b")):
        send_marker(place, tmp_path, marker)
        assert read_marker(place) == marker and marker.free == (marker == Marker())
    both = Marker(set_id="s", build="b")
    assert [str(marker) for marker in (Marker(), Marker(build="b"), both)] == ["no set", "the build b", "the set s"]
    assert both.matches(Marker(build="b")) and both.matches(Marker(set_id="s")) and not both.matches(Marker())
    assert not Marker(set_id="s").matches(Marker(build="b")) and not Marker(set_id="s").differs(Marker(build="b"))
    assert both.differs(Marker(set_id="t", build="b")) and not both.matches(Marker(set_id="t", build="b"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"set_id": 7}', '{"set_id": "%s"}' % ("9" * 60_000), '{"set_id": null, "build": ["b"]}']
)
def test_a_marker_that_says_nothing_takes_the_place_for_nobody_known(text: str) -> None:
    pytest.importorskip("fsspec")
    place = StorePlace("memory://lab/hostile")
    place.fs.pipe_file(place.path(MARKER_NAME), text.encode())
    found = read_marker(place)
    assert found.differs(Marker(build="b")) and not found.matches(Marker(set_id="s")) and len(str(found)) < 100
