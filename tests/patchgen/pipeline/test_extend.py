"""Test sets that are extended, and sets that are repaired in their own folders, through the command line."""

import json
import shutil
from pathlib import Path

import pytest

from patchgen.pipeline.output_dir import PLAN_NAME
from tests.conftest import Program, assert_one_line, make_photo, write_image
from tests.helpers.editing import contents, edited


@pytest.mark.parametrize(("n", "shard_size"), [(200, 80), (160, 80), (130, 500)])
def test_a_longer_set_is_the_one_built_at_once(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, n: int, shard_size: int
) -> None:
    base = ["build", "--image", photo_path, "--shard-size", shard_size, "--workers", 1, "--license", "CC0-1.0"]
    short, whole = tmp_path / "short", tmp_path / "whole"
    assert run_patchgen(*base, "--n", n, "--out", short).status == 0
    kept = (short / "patches-000000.tar").stat().st_mtime_ns
    assert run_patchgen(*base, "--n", 410, "--out", whole).status == 0
    command = ["extend", short, "--n", 410, "--image", photo_path]
    assert run_patchgen(*command).status == 0
    if shard_size < 500:
        assert contents(short) == contents(whole)
        assert (short / "patches-000000.tar").stat().st_mtime_ns == kept
    assert run_patchgen("diff", short, whole).status == 0
    assert run_patchgen(*command).status == 0
    assert_one_line(
        run_patchgen("extend", short, "--n", 300, "--image", photo_path), "the set has 410 patches already"
    )


def test_an_interrupted_extension_goes_on(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import patchgen.pipeline.build
    from patchgen.errors import PatchgenError

    base = ["build", "--image", photo_path, "--shard-size", 80, "--attribution", "me", "--workers", 1, "--n"]
    folder, whole = tmp_path / "set", tmp_path / "whole"
    assert run_patchgen(*base, 200, "--out", folder).status == 0
    assert run_patchgen(*base, 400, "--out", whole).status == 0

    def stop(*arguments: object) -> None:
        raise PatchgenError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(patchgen.pipeline.build, "build_shards", stop)
        assert run_patchgen("extend", folder, "--n", 400, "--image", photo_path).status == 1
    assert (folder / PLAN_NAME).exists() and not (folder / "manifest.json").exists()
    other = write_image(tmp_path / "other.png", make_photo(seed=1))
    assert_one_line(run_patchgen("extend", folder, "--n", 400, "--image", other), "the set's source 'photo.png' has")
    assert_one_line(
        run_patchgen("extend", folder, "--n", 500, "--image", photo_path), "of 400 patches, but this build has 500"
    )
    assert run_patchgen("extend", folder, "--n", 400, "--image", photo_path).status == 0
    assert contents(folder) == contents(whole)


def test_a_damaged_set_is_repaired_in_its_own_folder_even_in_two_attempts(
    patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import patchgen.pipeline.build
    from patchgen.errors import PatchgenError

    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    (copy / "patches-000001.tar").write_bytes(b"damaged")
    command = ["rebuild", "--manifest", copy, "--image", photo_path, "--out", copy, "--workers", 1]

    def stop(*arguments: object) -> None:
        raise PatchgenError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(patchgen.pipeline.build, "build_shards", stop)
        assert_one_line(run_patchgen(*command, "-q"), "stopped here")
    assert not (copy / "manifest.json").exists()
    assert run_patchgen(*command).status == 0
    assert contents(copy) == contents(patchset_path)


def test_a_build_killed_in_its_last_moment_is_cleaned_up(
    patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    (copy / PLAN_NAME).write_text("{}")
    assert run_patchgen("extend", copy, "--n", 200, "--image", photo_path).status == 0
    assert contents(copy) == contents(patchset_path)


def test_extending_with_another_opencv_is_refused(
    patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    edited(copy / "manifest.json", {"environment": {"opencv-python-headless": "5.1.0"}})
    before = contents(copy)
    result = run_patchgen("extend", copy, "--n", 300, "--image", photo_path)
    assert_one_line(result, "built with OpenCV 5.x; OpenCV 4.")
    assert contents(copy) == before


def test_a_damaged_record_is_refused(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import patchgen.pipeline.build
    from patchgen.errors import PatchgenError

    def stop(*arguments: object) -> None:
        raise PatchgenError("stopped here")

    monkeypatch.setattr(patchgen.pipeline.build, "build_shards", stop)
    command = ["build", "--image", photo_path, "--n", 20, "--out", tmp_path / "set"]
    assert run_patchgen(*command).status == 1
    record = tmp_path / "set" / PLAN_NAME
    whole = json.loads(record.read_text())
    for value in (whole | {"seed": -1}, whole | {"size": "a"}, whole | {"recipe": []}, {}, [], 7):
        record.write_text(json.dumps(value))
        assert_one_line(run_patchgen(*command), "contains an unfinished build with ")
    record.write_text("{")
    assert_one_line(run_patchgen(*command), PLAN_NAME)
