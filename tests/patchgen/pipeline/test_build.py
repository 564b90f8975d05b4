"""Test builds: the bytes do not depend on the processes, and builds are resumed, refused and interrupted."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import patchgen.pipeline.shard_writer
from manifests import open_patchset, verify_shards
from manifests.support.files import PART_PREFIX
from patchgen.pipeline.output_dir import PLAN_NAME, identity_of
from patchgen.pipeline.plan import default_shard_size
from tests.conftest import Program, assert_one_line
from tests.helpers.editing import contents

FORMATS = ("png", "jpg", "webp", "ppm")


@pytest.fixture
def arguments(photo_path: Path) -> list[Any]:
    """Return the command that built ``patchset_path``, without the value of --out."""
    base = ["build", "--image", photo_path, "--n", 200, "--shard-size", 80, "--format", "png"]
    return [*base, "--workers", 1, "--out"]


def test_a_set_holds_what_its_manifest_says(patchset_path: Path) -> None:
    patchset = open_patchset(patchset_path)
    verify_shards(patchset)
    assert sorted(contents(patchset_path)) == [
        "README.md",
        "SHA256SUMS",
        "croissant.json",
        "index.json",
        "manifest.json",
        *(f"patches-{k:06d}.{suffix}" for k in range(3) for suffix in ("parquet", "tar")),
    ]
    index = 0
    for shard in patchset.manifest.shards:
        rows = pq.read_table(patchset.shard_path(shard).with_suffix(".parquet")).to_pylist()
        with tarfile.open(patchset.shard_path(shard)) as archive:
            for member, row in zip(archive, rows, strict=True):
                assert member.name == f"{row['key']}.png" == f"{index:09d}.png"
                assert (member.offset_data, member.size) == (row["offset"], row["size"])
                image = cv2.imdecode(np.frombuffer(archive.extractfile(member).read(), np.uint8), cv2.IMREAD_COLOR)
                assert image.shape == (32, 32, 3)
                applied = row["augment0_ColorJitter_applied"]
                assert (row["augment0_ColorJitter_hue"] is not None) == applied
                index += 1
    assert index == patchset.manifest.n == 200


def test_a_patch_can_be_traced_to_its_place(patchset_path: Path, photo_path: Path) -> None:
    from patchgen.sources.photo import read_photo

    pixels = read_photo(photo_path).pixels
    rows = pq.read_table(patchset_path / "patches-000000.parquet").to_pylist()
    plain = [r for r in rows if not r["augment0_ColorJitter_applied"] and r["crop_width"] > 30][:10]
    with tarfile.open(patchset_path / "patches-000000.tar") as archive:
        for row in plain:
            data = archive.extractfile(f"{row['key']}.png").read()
            patch = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
            x, y = (int(row["crop_x"] + row["crop_width"] / 2), int(row["crop_y"] + row["crop_height"] / 2))
            centre = pixels[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(axis=0)
            assert np.abs(patch[14:18, 14:18].reshape(-1, 3).mean(axis=0) - centre).max() < 25


def test_workers_and_a_kill_do_not_change_a_byte(photo_path: Path, tmp_path: Path) -> None:
    """A build with three processes, and a build that was killed twice, have the same bytes as with one process."""
    base = [sys.executable, "-m", "patchgen", "build", "--image", photo_path, "--n", "12000"]
    base += ["--shard-size", "1500", "--out"]

    def run(name: str, workers: int) -> dict[str, bytes]:
        subprocess.run([*base, tmp_path / name, "--workers", str(workers)], check=True, capture_output=True)
        return contents(tmp_path / name)

    expected = run("one", 1)
    assert run("three", 3) == expected
    for shards_done in (1, 4):
        build = subprocess.Popen([*base, tmp_path / "killed", "--workers", "2"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "killed").glob("*.parquet"))) < shards_done and time.monotonic() < deadline:
            time.sleep(0.01)
        build.send_signal(signal.SIGKILL)
        build.wait()
        assert not (tmp_path / "killed" / "manifest.json").exists()
    assert run("killed", 2) == expected


def test_two_ctrl_c_end_a_parallel_build_in_one_line(photo_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "patchgen", "build", "--image", photo_path, "--n", "200000"]
    command += ["--shard-size", "1000", "--workers", "2", "--out", tmp_path / "out"]
    build = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(2):
        os.killpg(build.pid, signal.SIGINT)
        time.sleep(0.02)
    _, err = build.communicate(timeout=60)
    assert build.returncode == 130
    assert err.splitlines() == ["patchgen: interrupted; run the same command again to continue"]
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_patches_do_not_depend_on_shards_or_count(
    patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    run_patchgen(
        *("build", "--image", photo_path, "--n", 130, "--shard-size", 50),
        *("--format", "png", "--workers", 1, "--out", tmp_path / "other"),
    )

    def digests(folder: Path) -> list[bytes]:
        return [d for p in sorted(folder.glob("*.parquet")) for d in pq.read_table(p)["pixels"].to_pylist()]

    assert digests(tmp_path / "other") == digests(patchset_path)[:130]


def test_running_again_repairs_and_otherwise_changes_nothing(
    patchset_path: Path,
    tmp_path: Path,
    run_patchgen: Program,
    arguments: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path(shutil.copytree(patchset_path, tmp_path / "out"))
    expected = contents(out)
    built = []
    original = patchgen.pipeline.shard_writer.build_shard
    monkeypatch.setattr(
        patchgen.pipeline.shard_writer, "build_shard", lambda j, t, f: built.append(t.number) or original(j, t, f)
    )
    assert run_patchgen(*arguments, out).status == 0
    assert built == []
    damaged = bytearray(expected["patches-000001.tar"])
    damaged[1000] ^= 1
    (out / "patches-000001.tar").write_bytes(damaged)
    (out / "patches-000002.parquet").unlink()
    result = run_patchgen(*arguments, out)
    assert result.status == 0 and json.loads(expected["manifest.json"])["set_id"] in result.out
    assert built == [1, 2]
    assert contents(out) == expected


@pytest.mark.parametrize("finished", [True, False])
def test_a_table_with_a_flipped_bit_is_built_again(
    patchset_path: Path, tmp_path: Path, run_patchgen: Program, arguments: list[Any], finished: bool
) -> None:
    out = Path(shutil.copytree(patchset_path, tmp_path / "out"))
    expected = contents(out)
    table = expected["patches-000001.parquet"]
    digest = pq.read_table(out / "patches-000001.parquet")["pixels"][3].as_py()
    position = table.index(digest)
    (out / "patches-000001.parquet").write_bytes(table[:position] + b"\x00" + table[position + 1 :])
    if not finished:
        identity = identity_of(open_patchset(out).manifest)
        (out / PLAN_NAME).write_text(json.dumps(identity))
        (out / "manifest.json").unlink()
    assert run_patchgen(*arguments, out).status == 0
    assert contents(out) == expected


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (["--seed", 1], "with seed 0, but this build has seed 1"),
        (["--n", 150], "of 200 patches, but this build has 150 patches; choose another --out, or give --n 200"),
        (
            ["--format", "jpg"],
            'with encoding.format "png", encoding.compression 1, encoding.filter "paeth", but this build has',
        ),
        (["--shard-size", 90], "with shard_size 80, but this build has shard_size 90"),
        (["--size", 16], "with size 32, but this build has size 16"),
    ],
)
def test_a_folder_with_another_set_is_refused(
    patchset_path: Path, run_patchgen: Program, arguments: list[Any], change: list[Any], part: str
) -> None:
    before = contents(patchset_path)
    assert_one_line(run_patchgen(*arguments, patchset_path, *change), "contains a finished set " + part, "--out")
    assert contents(patchset_path) == before


@pytest.mark.parametrize("manifest", [None, b'{"x":', b"{}"])
def test_a_lost_or_damaged_manifest_is_written_again_by_the_same_build_only(
    manifest: bytes | None, patchset_path: Path, tmp_path: Path, run_patchgen: Program, arguments: list[Any]
) -> None:
    out = Path(shutil.copytree(patchset_path, tmp_path / "out"))

    def damage() -> dict[str, bytes]:
        (out / "manifest.json").unlink()
        if manifest is not None:
            (out / "manifest.json").write_bytes(manifest)
        (out / "patches-000000.tar").write_bytes(b"damaged")
        return contents(out)

    before = damage()
    what = "the folder has no manifest.json" if manifest is None else "out/manifest.json: "
    for change in (["--seed", 1], ["--n", 160], ["--n", 300], ["--n", 199], ["--shard-size", 100]):
        other = run_patchgen(*arguments, out, *change)
        assert_one_line(other, what, ", and the table of the last shard is missing, damaged, or from a build with")
        assert contents(out) == before
    (out / "notes.txt").write_text("mine")
    same = run_patchgen(*arguments, out)
    assert same.status == 0 and what in same.err, same
    assert contents(out) == {**contents(patchset_path), "notes.txt": b"mine"}
    damage()
    (out / "patches-000002.parquet").write_bytes(b"damaged")
    assert_one_line(run_patchgen(*arguments, out), what, "missing, damaged, or from a build", "choose another --out")


def test_an_unfinished_build_of_another_recipe(
    tmp_path: Path, run_patchgen: Program, arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(patchgen.pipeline.shard_writer, "build_shard", stop)
        assert_one_line(run_patchgen(*arguments, out), "interrupted", status=130)
    assert (out / PLAN_NAME).exists()
    result = run_patchgen(*arguments, out, "--seed", 9)
    assert_one_line(result, "contains an unfinished build with seed 0, but this build has seed 9")
    assert run_patchgen(*arguments, out).status == 0
    assert not (out / PLAN_NAME).exists()


def test_card_texts_are_added_and_kept(
    patchset_path: Path, tmp_path: Path, run_patchgen: Program, arguments: list[Any]
) -> None:
    out = Path(shutil.copytree(patchset_path, tmp_path / "out"))
    before = open_patchset(out).manifest

    def source() -> Any:
        return open_patchset(out).manifest.sources[0]

    assert run_patchgen(*arguments, out, "--license", "CC0-1.0").status == 0
    assert (source().licence, source().url) == ("CC0-1.0", None)
    (out / "patches-000000.tar").unlink()
    assert run_patchgen(*arguments, out, "--url", "https://example.org/photo").status == 0
    assert (source().licence, source().url) == ("CC0-1.0", "https://example.org/photo")
    assert open_patchset(out).manifest.set_id == before.set_id


def test_pipes_are_not_waited_for(tmp_path: Path, run_patchgen: Program, arguments: list[Any]) -> None:
    os.mkfifo(tmp_path / "p")
    for option in ("--image", "--recipe"):
        assert_one_line(run_patchgen(*arguments, tmp_path / "out", option, tmp_path / "p"), "is not a regular file")
    out = tmp_path / "set"
    out.mkdir()
    os.mkfifo(out / "manifest.json")
    assert_one_line(run_patchgen(*arguments, out), "is not a regular file")


def test_too_many_shards(tmp_path: Path, run_patchgen: Program, arguments: list[Any]) -> None:
    many = ["--n", 10**9, "--shard-size", 1]
    assert_one_line(run_patchgen(*arguments, tmp_path / "out", *many), "1000000000 shards, expected at most 90000")


def test_foreign_files_are_left_alone(tmp_path: Path, run_patchgen: Program, arguments: list[Any]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert_one_line(run_patchgen(*arguments, tmp_path), "files that no build wrote (thesis.tex)")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_no_space_left(
    tmp_path: Path, run_patchgen: Program, arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert_one_line(run_patchgen(*arguments, out), "no space left", str(out), "run the same command again")
    assert not (out / "manifest.json").exists()
    assert not list(out.glob(f"{PART_PREFIX}*"))
    assert run_patchgen(*arguments, out).status == 0
    verify_shards(open_patchset(out))


def test_an_unwritable_folder(tmp_path: Path, run_patchgen: Program, arguments: list[Any]) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(run_patchgen(*arguments, tmp_path / "file" / "out"), "is not a folder, or is inside a file")


def test_two_builds_in_one_folder(tmp_path: Path, run_patchgen: Program, arguments: list[Any]) -> None:
    import fcntl

    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert_one_line(run_patchgen(*arguments, tmp_path), "another build writes to this folder")
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (["--n", "0"], "0 is not in the range"),
        (["--n", "many"], "not a valid integer"),
        (["--size", "4"], "4 is not in the range"),
        (["--format", "gif"], "'gif' is not one of"),
        (["--seed", "-1"], "-1 is not in the range"),
        (["--colour", "red"], "No such option"),
        (["--shard-size", "100001"], "100001 is not in the range"),
        (["--workers", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, run_patchgen: Program, arguments: list[Any], extra: list[str], part: str
) -> None:
    result = run_patchgen(*arguments, tmp_path / "out", *extra)
    assert result.status == 2
    assert part in result.err
    assert not (tmp_path / "out").exists()


def test_a_long_build_starts_with_the_shards_of_a_short_one() -> None:
    assert default_shard_size(32) == default_shard_size(8) == 20_000
    assert default_shard_size(224) == 408
    assert default_shard_size(1024) == 100
