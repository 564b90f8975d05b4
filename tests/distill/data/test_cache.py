"""Test decoded sets: their pixels, their place in memory or on disk, and damaged files."""

import fcntl
import os
import shutil
from pathlib import Path

import PIL
import pytest
import torch

from distill.data import cache
from distill.data.batches import Resident
from distill.data.cache import open_source
from distill.data.config import DataConfig
from distill.data.stream import Streamed
from distill.errors import DistillError
from distill.runtime import device
from distill.runtime.distributed import RunContext
from manifests import open_patchset
from manifests.errors import PatchSetError
from manifests.format.digest import pixel_digest, pixel_root
from tests.helpers.running import log_lines

CPU = torch.device("cpu")


def load(shards: Path, **values: object) -> tuple[torch.Tensor, list[str]]:
    config = DataConfig.model_validate(values)
    with log_lines() as said, open_source(open_patchset(shards), config, 0, RunContext(device=CPU)) as source:
        assert isinstance(source, Resident)
        return source.samples, said


def require_pixels(tensor: torch.Tensor, shards: Path) -> None:
    manifest = open_patchset(shards).manifest
    assert tensor.shape == (200, 32, 32, 3) and tensor.dtype == torch.uint8
    assert pixel_root(pixel_digest(image.numpy()) for image in tensor) == manifest.pixel_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "single-image-distillation"


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("place", ["auto", "ram", "disk"])
def test_the_pixels_are_the_sets(patchset_path: Path, folder: Path, place: str, workers: int) -> None:
    """The decoded pixels have the digest of the set, in memory and on disk. A second run does not decode again."""
    first, said = load(patchset_path, cache=place, workers=workers)
    require_pixels(first, patchset_path)
    assert "3 verified shards" in said[0]
    set_id = open_patchset(patchset_path).manifest.set_id
    assert sorted(path.name for path in folder.iterdir()) == [f"{set_id}.json", f"{set_id}.rgb"]
    again, said = load(patchset_path, cache=place, workers=workers)
    require_pixels(again, patchset_path)
    assert said[0].startswith(
        f"set {set_id[:16]}: 200 patches, decoded by an earlier run and verified now: {folder}/"
    )
    again.zero_()  # a run may change its pixels, but not the file
    require_pixels(load(patchset_path, cache=place)[0], patchset_path)


def test_a_set_decoded_before_needs_no_shard(patchset_path: Path, tmp_path: Path) -> None:
    load(patchset_path)
    (tmp_path / "only").mkdir()
    shutil.copy(patchset_path / "manifest.json", tmp_path / "only")
    require_pixels(load(tmp_path / "only")[0], patchset_path)


@pytest.mark.parametrize("damage", ["flip", "truncate", "note", "no note"])
def test_a_damaged_file_is_decoded_again(patchset_path: Path, folder: Path, damage: str) -> None:
    load(patchset_path)
    path, note = (next(folder.glob(f"*.{suffix}")) for suffix in ("rgb", "json"))
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[5000] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "note":
        note.write_text("[")
    else:
        note.unlink()
    tensor, said = load(patchset_path)
    assert "verified shards" in said[0]
    require_pixels(tensor, patchset_path)
    assert "decoded by an earlier run" in load(patchset_path)[1][0]


def test_a_damaged_shard_is_refused_and_nothing_is_kept(patchset_path: Path, tmp_path: Path, folder: Path) -> None:
    shards = Path(shutil.copytree(patchset_path, tmp_path / "shards"))
    data = bytearray((shards / "patches-000001.tar").read_bytes())
    data[3000] ^= 1
    (shards / "patches-000001.tar").write_bytes(data)
    with pytest.raises(PatchSetError, match="sha256 is"):
        load(shards)
    assert not folder.exists()


def test_no_room_on_the_disk(patchset_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Without space on the disk, the pixels are only in memory. If the config asks for the disk, the run fails."""
    monkeypatch.setattr(cache, "MARGIN", 1 << 60)
    monkeypatch.setattr(cache, "free_memory", lambda: 1 << 62)
    tensor, said = load(patchset_path)
    require_pixels(tensor, patchset_path)
    assert "not kept for the next run" in said[1] and not list(folder.iterdir())
    with pytest.raises(DistillError, match=r"data\.cache disk: .*GB free.*another data\.cache_dir"):
        load(patchset_path, cache="disk")


def test_what_does_not_fit_anywhere_is_streamed(patchset_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MARGIN", 1 << 62)
    with open_source(open_patchset(patchset_path), DataConfig(), 0, RunContext(device=CPU)) as source:
        assert isinstance(source, Streamed)


def test_a_window_has_room(patchset_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is refused if its decoded shards do not fit into memory."""
    largest = max(shard.n for shard in open_patchset(patchset_path).manifest.shards)
    needed = 3 * largest * 32 * 32 * 3
    for free, message in (
        (needed, None),
        (needed - 1, r"data\.window 1: streaming needs .*smaller"),
    ):
        monkeypatch.setattr(cache, "free_memory", lambda free=free: free)
        config = DataConfig(cache="none", window=1)
        if message is None:
            with open_source(open_patchset(patchset_path), config, 0, RunContext(device=CPU)) as source:
                assert isinstance(source, Streamed)
        else:
            with (
                pytest.raises(DistillError, match=message),
                open_source(open_patchset(patchset_path), config, 0, RunContext(device=CPU)),
            ):
                pass


def test_a_disk_that_fills_while_the_file_is_made(
    patchset_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def full(handle: int, offset: int, length: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    tensor, said = load(patchset_path)
    require_pixels(tensor, patchset_path)
    assert "No space left" in said[1] and not list(folder.iterdir())


def test_too_little_memory(patchset_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without free memory, ``cache: ram`` is an error, and ``cache: auto`` uses the disk."""
    monkeypatch.setattr(cache, "free_memory", lambda: 0)
    with pytest.raises(DistillError, match=r"data\.cache ram: cannot .* memory is too small; set data\.cache auto$"):
        load(patchset_path, cache="ram")
    with pytest.raises(DistillError, match=r"data\.cache gpu: cannot .*: no GPU has"):
        load(patchset_path, cache="gpu")
    require_pixels(load(patchset_path)[0], patchset_path)  # uses the disk


def test_leftovers_of_killed_runs_go(patchset_path: Path, folder: Path) -> None:
    """Partial files of killed runs are deleted, but not those of a running program."""
    folder.mkdir(parents=True)
    dead, alive = folder / ".patchset-part-1-x.rgb", folder / ".patchset-part-2-x.rgb"
    dead.touch()
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        load(patchset_path)
        assert not dead.exists() and alive.exists()


def test_another_decoder_decodes_again(patchset_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(patchset_path)
    monkeypatch.setattr(PIL, "__version__", "99.0")
    assert "verified shards" in load(patchset_path)[1][0]


def test_the_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory is the limit of the container minus its use."""
    files = {"/sys/fs/cgroup/memory.max": "3000\n", "/sys/fs/cgroup/memory.current": "1000\n"}
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self: files.get(str(self)) or original(self))
    assert device.free_memory() == 2000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert device.free_memory() > 2000


def test_a_folder_of_ones_own(patchset_path: Path, tmp_path: Path, folder: Path) -> None:
    """``cache_dir`` replaces the default folder."""
    load(patchset_path, cache_dir=str(tmp_path / "mine"))
    assert len(list((tmp_path / "mine").iterdir())) == 2 and not folder.exists()
