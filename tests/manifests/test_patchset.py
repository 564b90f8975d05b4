"""Test how a set is opened, how its shards are verified, and how files are written completely or not at all."""

import errno
import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import manifests.patchset as patchset_module
from manifests import PatchSetError, open_patchset, verify_shards
from manifests.format.digest import file_digest, pixel_digest, pixel_root
from manifests.format.shard_table import _open_parquet, read_pixel_digests
from manifests.patchset import _read_span
from manifests.support.files import PART_PREFIX, atomic_file, remove_parts, write_atomically


@pytest.fixture
def copy(patchset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(patchset_path, tmp_path / "copy"))


def fault(folder: Path) -> str:
    with pytest.raises(PatchSetError) as caught:
        verify_shards(open_patchset(folder))
    return str(caught.value)


def test_a_good_set_verifies(copy: Path) -> None:
    seen = []
    patchset = open_patchset(copy)
    verify_shards(patchset, on_bytes=seen.append)
    assert sum(seen) == sum(shard.bytes for shard in patchset.manifest.shards)


@pytest.mark.parametrize("position", [0, 511, 5000, -1])
def test_one_flipped_bit(copy: Path, position: int) -> None:
    path = copy / "patches-000001.tar"
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)
    assert str(path) in fault(copy)
    assert "the manifest declares" in fault(copy)


def test_a_truncated_a_missing_and_a_linked_shard(copy: Path) -> None:
    path = copy / "patches-000002.tar"
    data = path.read_bytes()
    path.write_bytes(data[:-512])
    assert "bytes, the manifest declares" in fault(copy)
    path.unlink()
    assert "missing" in fault(copy)
    other = copy / "other.tar"
    other.write_bytes(data)
    path.symlink_to(other)
    assert "not a regular file" in fault(copy)


def test_no_folder_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(PatchSetError, match="no such folder"):
        open_patchset(tmp_path / "none")
    with pytest.raises(PatchSetError, match=r"the folder has no manifest\.json"):
        open_patchset(tmp_path)


def test_denied_files_are_not_called_corrupt(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    shard = copy / "patches-000000.tar"
    patchset = open_patchset(copy)
    monkeypatch.setattr(Path, "open", deny)  # root may read every file, so no mode denies it to this test
    monkeypatch.setattr(patchset_module, "file_digest", deny)
    monkeypatch.setattr(patchset_module, "read_regular_file", deny)
    denied = "cannot be read: Permission denied; change its permissions"
    with pytest.raises(PatchSetError) as caught:
        verify_shards(patchset)
    assert str(caught.value) == f"{shard}: the shard {denied}"
    with pytest.raises(PatchSetError) as caught:
        open_patchset(copy)
    assert str(caught.value) == f"{copy / 'manifest.json'}: the manifest {denied}"
    with pytest.raises(PatchSetError) as caught, _open_parquet(shard.with_suffix(".parquet")):
        pass
    assert str(caught.value) == f"{shard.with_suffix('.parquet')}: the table {denied}"


def test_the_four_digests(patchset_path: Path) -> None:
    patchset = open_patchset(patchset_path)
    chunks = []
    for shard in patchset.manifest.shards:
        path = patchset.shard_path(shard)
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard.sha256 == file_digest(path)
        table = pq.read_table(path.with_suffix(".parquet"))
        for row in table.select(["offset", "size", "sha256"]).to_pylist():
            encoded = data[row["offset"] : row["offset"] + row["size"]]
            assert hashlib.sha256(encoded).digest() == row["sha256"]
        chunks.append(read_pixel_digests(path.with_suffix(".parquet"), shard.n))
        assert chunks[-1] == b"".join(table["pixels"].to_pylist())
    assert pixel_root(chunks) == patchset.manifest.pixel_root
    assert pixel_root([b"".join(chunks)]) == patchset.manifest.pixel_root


def test_pixel_digest_is_of_the_plain_bytes() -> None:
    patch = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert pixel_digest(patch) == hashlib.sha256(bytes(range(12))).digest()
    assert pixel_digest(patch[:, ::-1]) == hashlib.sha256(patch[:, ::-1].tobytes()).digest()
    with pytest.raises(PatchSetError, match="expected uint8"):
        pixel_digest(patch.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(PatchSetError, match="expected a multiple of 32"):
        pixel_root([b"x"])


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_parts_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{PART_PREFIX}1-x.tar").write_bytes(b"half")
    (tmp_path / "keep").write_bytes(b"")
    remove_parts(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["keep"]


def test_a_damaged_table(tmp_path: Path, patchset_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes((patchset_path / "patches-000000.parquet").read_bytes()[:-100])
    with pytest.raises(PatchSetError, match="cannot be read as Parquet"):
        read_pixel_digests(path, 80)


def test_a_set_is_a_sequence_of_patches(patchset_path: Path) -> None:
    patchset = open_patchset(patchset_path)
    assert len(patchset) == 200
    for index in (0, 79, 80, 199):
        row = patchset.row(index)
        assert row["index"] == index and row["key"] == f"{index:09d}"
        assert pixel_digest(patchset[index]) == row["pixels"]
        data = patchset.shard_path(patchset.shard_of(index)).read_bytes()
        assert hashlib.sha256(data[row["offset"] : row["offset"] + row["size"]]).digest() == row["sha256"]
    assert sum(1 for _ in patchset) == 200
    assert np.array_equal(patchset[np.int64(7)], pickle.loads(pickle.dumps(patchset))[7])  # noqa: S301
    for index in (-1, 200):
        with pytest.raises(IndexError, match="0 to 199"):
            patchset[index]
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        patchset[0:2]  # type: ignore[index]
    shards = patchset.manifest.shards
    assert patchset.rows(shards[1])["index"] == list(range(80, 160))
    assert list(patchset.verified_shards()) == [patchset_path / shard.name for shard in shards]


def test_shards_before_a_bad_one_are_given_out(patchset_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(patchset_path, tmp_path / "set"))
    with (copy / "patches-000001.tar").open("r+b") as file:
        file.seek(600)
        file.write(b"?")
    given = open_patchset(copy).verified_shards()
    assert next(given).name == "patches-000000.tar"
    with pytest.raises(PatchSetError, match=r"patches-000001\.tar: sha256 is"):
        next(given)


@pytest.mark.parametrize(("offset", "length"), [(-512, 10), (0, -1), (90, 20), (2**62, 2**62), (0, 60)])
def test_a_table_that_declares_bytes_outside_the_shard(offset: int, length: int, tmp_path: Path) -> None:
    """A wrong offset or size of a patch is one error, not bytes of another patch."""
    path = tmp_path / "patches-000000.tar"
    path.write_bytes(bytes(100))
    with pytest.raises(PatchSetError, match=r"declares .* at offset .*, the shard has 100 bytes, a patch at most 50"):
        _read_span(path, offset, length, 50)
