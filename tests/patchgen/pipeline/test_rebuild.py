"""Test sets that are built again from their manifests, through the command line."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from manifests import open_patchset
from manifests.format.schema import parse_manifest
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import plan_of
from patchgen.sources.photo import read_photo
from tests.conftest import Program, Result, assert_one_line, make_photo, write_image
from tests.helpers.editing import contents, edited
from tests.helpers.resign import resign_manifest


def test_a_manifest_and_the_photo_give_the_same_folder(
    manifest_path: Path, patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    assert manifest_path.stat().st_size < 20_000
    command = ["rebuild", "--manifest", manifest_path, "--image", photo_path, "--out", tmp_path / "out"]
    result = run_patchgen(*command)
    assert result.status == 0, result
    assert contents(tmp_path / "out") == contents(patchset_path)
    assert open_patchset(patchset_path).manifest.set_id in result.out
    assert result.err == ""
    assert_kept(run_patchgen(*command), "3 intact shards kept, 0 to build")
    (tmp_path / "out" / "patches-000001.tar").write_bytes(b"damage")
    assert_kept(run_patchgen(*command), "2 intact shards kept, 1 to build")
    assert contents(tmp_path / "out") == contents(patchset_path)


def assert_kept(result: Result, note: str) -> None:
    assert (result.status, result.err) == (0, note + "\n"), result


def test_a_photo_in_another_container_will_do(
    manifest_path: Path, patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    other = write_image(tmp_path / "copy.bmp", cv2.cvtColor(cv2.imread(str(photo_path)), cv2.COLOR_BGR2RGB))
    out = tmp_path / "out"
    assert run_patchgen("rebuild", "--manifest", manifest_path, "--image", other, "--out", out).status == 0
    assert contents(out) == contents(patchset_path)


def test_another_photo_is_refused(manifest_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    other = write_image(tmp_path / "other.png", make_photo(seed=1))
    out = tmp_path / "out"
    result = run_patchgen("rebuild", "--manifest", manifest_path, "--image", other, "--out", out)
    assert_one_line(
        result, "other.png: the photo has 160×120 px and pixel sha256 ", "source 'photo.png' has 160×120 px and "
    )
    result = run_patchgen("rebuild", "--manifest", manifest_path, "--image", other, "--image", other, "--out", out)
    assert_one_line(result, "the set has 1 source (photo.png), but --image was given 2 times")
    assert not out.exists()


def test_photos_in_another_order_are_named(tmp_path: Path, run_patchgen: Program) -> None:
    a, b, c = (write_image(tmp_path / f"{seed}.png", make_photo(seed=seed)) for seed in range(3))
    out = tmp_path / "set"

    def images(*paths: Path) -> list[Any]:
        return [argument for path in paths for argument in ("--image", path)]

    assert run_patchgen("build", *images(a, b, a, c), "--n", 10, "--out", out).status == 0
    command = ["rebuild", "--manifest", out, "--out", tmp_path / "copy"]
    result = run_patchgen(*command, *images(a, a, c, b))
    assert_one_line(result, f"the photos are not in the set's order; give {b} before {a}")
    assert_one_line(run_patchgen(*command, *images(a, b, c, b)), f"{c}: the photo has 160×120 px and pixel sha256 ")
    assert run_patchgen(*command, *images(a, b, a, c)).status == 0


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"seed": 3}, "set_id is"),
        ({"environment": {"opencv-python-headless": "5.0.0.93"}}, "built with OpenCV 5.x; OpenCV 4."),
        ({"format": "patchset/2"}, "format is 'patchset/2', expected 'patchset/1'"),
    ],
)
def test_an_edited_manifest_is_refused(
    manifest_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program, change: dict[str, Any], part: str
) -> None:
    command = ["rebuild", "--manifest", edited(manifest_path, change), "--image", photo_path]
    assert_one_line(run_patchgen(*command, "--out", tmp_path / "out"), part)
    assert not (tmp_path / "out").exists()


def test_a_forged_manifest_stops_at_the_first_shard(
    manifest_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    forged = resign_manifest(edited(manifest_path, {"seed": 3}))
    command = ["rebuild", "--manifest", forged, "--image", photo_path, "--out", tmp_path / "out", "--workers", 1]
    result = run_patchgen(*command)
    assert_one_line(result, "patches-000000.tar: ", "the manifest declares", "the built shard has")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "patches-000001.tar").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"recipe": {"version": 2}}, "the manifest's recipe: version:"),
        ({"recipe": {"blur": 1}}, "the manifest's recipe: unknown key 'blur'"),
        ({"recipe": {"profile": "fast"}}, "has other keys than this version of the package writes"),
    ],
)
def test_a_recipe_this_version_does_not_know(
    manifest_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program, change: dict[str, Any], part: str
) -> None:
    unknown = resign_manifest(edited(manifest_path, change))
    command = ["rebuild", "--manifest", unknown, "--image", photo_path, "--out", tmp_path / "out"]
    assert_one_line(run_patchgen(*command), part)


def test_tables_of_another_writer_change_no_set(manifest_path: Path, photo_path: Path, tmp_path: Path) -> None:
    value = json.loads(manifest_path.read_bytes())
    value["shards"][0]["parquet"]["sha256"] = "0" * 64
    wanted = parse_manifest(json.dumps(value).encode(), "m")
    photos = [read_photo(photo_path)]
    plan = plan_of(wanted, photos, n=wanted.n)
    made = build(plan, photos, tmp_path / "out", workers=1, expected=wanted)
    assert made != wanted and made.set_id == wanted.set_id


def test_rebuilding_does_not_depend_on_the_shard_size_a_small_set_was_built_with(
    photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    command = ["build", "--image", photo_path, "--n", 30, "--shard-size", 60, "--out", tmp_path / "a"]
    assert run_patchgen(*command).status == 0
    command = ["rebuild", "--manifest", tmp_path / "a", "--image", photo_path, "--out", tmp_path / "b"]
    assert run_patchgen(*command).err == ""
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"n": 10**6, "shards": 10**6}, "a shard has 1000000 patches, expected at most 100000"),
        ({"size": 4096}, "the patch size is 4096 px, expected 8 to 1024 px"),
        ({"uneven": True}, "shard 1 of the set has 159 patches, expected 1, as in shard 0"),
        ({"sources": {"width": 5}}, "the set's source 'photo.png' has 5×120"),
    ],
)
def test_manifests_of_sets_that_no_build_makes(
    manifest_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program, change: dict[str, Any], part: str
) -> None:
    value = json.loads(manifest_path.read_bytes())
    if "shards" in change:
        value["n"] = value["shards"][0]["n"] = change["n"]
        del value["shards"][1:]
    if "uneven" in change:
        value["shards"][1] |= {"first_index": 1}
        value["shards"][0]["n"], value["shards"][1]["n"] = 1, 159
    value["size"] = change.get("size", value["size"])
    value["sources"][0] |= change.get("sources", {})
    manifest_path.write_text(json.dumps(value))
    command = [
        "rebuild",
        "--manifest",
        resign_manifest(manifest_path),
        "--image",
        photo_path,
        "--out",
        tmp_path / "out",
    ]
    assert_one_line(run_patchgen(*command), part)
