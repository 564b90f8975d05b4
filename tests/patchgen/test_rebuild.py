"""Sets made again: rebuilt from a manifest, made longer, compared patch by patch, through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from manifests import open_patchset
from manifests.schema import parse_manifest
from patchgen.folder import PLAN_NAME
from patchgen.rebuild import rebuild
from patchgen.source import read_photo
from tests.conftest import Program, assert_one_line, make_photo, write_image


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def manifest_path(patchset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(patchset_path / "manifest.json", tmp_path / "manifest.json"))


def edited(path: Path, change: dict[str, Any]) -> Path:
    value = json.loads(path.read_bytes())
    for key, item in change.items():
        value[key] = value[key] | item if isinstance(item, dict) else item
    path.write_text(json.dumps(value))
    return path


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
    assert run_patchgen(*command).status == 0
    assert contents(tmp_path / "out") == contents(patchset_path)


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
    assert_one_line(result, "other.png: 160×120 pixels with digest", "the set's source 'photo.png' has")
    result = run_patchgen("rebuild", "--manifest", manifest_path, "--image", other, "--image", other, "--out", out)
    assert_one_line(result, "images given: 2, sources of the set: 1, photo.png")
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"seed": 3}, "set_id is"),
        ({"environment": {"opencv-python-headless": "5.0.0.93"}}, "written with OpenCV 5.x, here is 4.x"),
        ({"format": "patchset/2"}, "format is 'patchset/2', this version reads 'patchset/1'"),
    ],
)
def test_an_edited_manifest_is_refused(
    manifest_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program, change: dict[str, Any], part: str
) -> None:
    command = ["rebuild", "--manifest", edited(manifest_path, change), "--image", photo_path]
    assert_one_line(run_patchgen(*command, "--out", tmp_path / "out"), part)
    assert not (tmp_path / "out").exists()


def sign(path: Path) -> Path:
    """Give an edited manifest the set_id of its content, as a forger would."""
    from manifests.digest import set_id

    value = json.loads(path.read_bytes())
    return edited(path, {"set_id": set_id(value)})


def test_a_forged_manifest_stops_at_the_first_shard(
    manifest_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    forged = sign(edited(manifest_path, {"seed": 3}))
    command = ["rebuild", "--manifest", forged, "--image", photo_path, "--out", tmp_path / "out", "--workers", 1]
    result = run_patchgen(*command)
    assert_one_line(result, "patches-000000.tar: ", "the manifest says", "this machine makes other bytes")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "patches-000001.tar").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"recipe": {"version": 2}}, "the manifest's recipe: version:"),
        ({"recipe": {"blur": 1}}, "the manifest's recipe: unknown key 'blur'"),
        ({"recipe": {"profile": "fast"}}, "is not complete as this version records it"),
    ],
)
def test_a_recipe_this_version_does_not_know(
    manifest_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program, change: dict[str, Any], part: str
) -> None:
    unknown = sign(edited(manifest_path, change))
    command = ["rebuild", "--manifest", unknown, "--image", photo_path, "--out", tmp_path / "out"]
    assert_one_line(run_patchgen(*command), part)


def test_tables_of_another_writer_change_no_set(manifest_path: Path, photo_path: Path, tmp_path: Path) -> None:
    value = json.loads(manifest_path.read_bytes())
    value["shards"][0]["parquet"]["sha256"] = "0" * 64
    wanted = parse_manifest(json.dumps(value).encode(), "m")
    made = rebuild(wanted, [read_photo(photo_path)], tmp_path / "out", workers=1)
    assert made != wanted and made.set_id == wanted.set_id


@pytest.mark.parametrize(("n", "shard_size"), [(200, 80), (160, 80), (130, 500)])
def test_a_longer_set_is_the_one_built_at_once(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, n: int, shard_size: int
) -> None:
    base = ["build", "--image", photo_path, "--shard-size", shard_size, "--workers", 1, "--licence", "CC0-1.0"]
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
    assert_one_line(run_patchgen("extend", short, "--n", 300, "--image", photo_path), "holds 410 patches already")


def test_an_interrupted_extension_goes_on(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import patchgen.build
    from patchgen.errors import PatchgenError

    base = ["build", "--image", photo_path, "--shard-size", 80, "--attribution", "me", "--workers", 1, "--n"]
    folder, whole = tmp_path / "set", tmp_path / "whole"
    assert run_patchgen(*base, 200, "--out", folder).status == 0
    assert run_patchgen(*base, 400, "--out", whole).status == 0

    def stop(*arguments: object) -> None:
        raise PatchgenError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(patchgen.build, "build_shards", stop)
        assert run_patchgen("extend", folder, "--n", 400, "--image", photo_path).status == 1
    assert (folder / PLAN_NAME).exists() and not (folder / "manifest.json").exists()
    other = write_image(tmp_path / "other.png", make_photo(seed=1))
    assert_one_line(run_patchgen("extend", folder, "--n", 400, "--image", other), "holds an unfinished build")
    assert_one_line(
        run_patchgen("extend", folder, "--n", 500, "--image", photo_path), "with n 400, this build has n 500"
    )
    assert run_patchgen("extend", folder, "--n", 400, "--image", photo_path).status == 0
    assert contents(folder) == contents(whole)


def test_patches_built_again(patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    command = ["verify", patchset_path, "--regenerate", 50, "--image", photo_path]
    result = run_patchgen(*command)
    assert result.status == 0 and "good: 50 of 200 patches built again from the photo" in result.out
    assert json.loads(run_patchgen(*command, "--json").out)["patches_regenerated"] == 50
    # A set that agrees with itself, but was made with another seed than it says, is caught by this alone.
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    forged = parse_manifest(sign(edited(copy / "manifest.json", {"seed": 3})).read_bytes(), "m")
    from manifests.patchset import write_manifest

    write_manifest(copy, forged)
    assert run_patchgen("verify", copy).status == 0
    result = run_patchgen("verify", copy, "--regenerate", 3, "--image", photo_path)
    assert_one_line(result, "6 faults")
    assert result.out.count("built again, its pixels are") == 3


def test_verify_prints_what_is_wrong(patchset_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    good = run_patchgen("verify", patchset_path)
    assert good.status == 0 and "good: every file, member, row and digest of 200 patches in 3 shards" in good.out
    assert "names, sizes and counts" in run_patchgen("verify", patchset_path, "--fast").out
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    (copy / "patches-000001.tar").unlink()
    bad = run_patchgen("verify", copy)
    assert_one_line(bad, "1 fault;")
    assert bad.out == "patches-000001.tar: is missing; rebuild it or copy it again from a good set\n"
    value = json.loads(run_patchgen("verify", copy, "--json").out)
    assert not value["good"] and value["faults"][0]["file"] == "patches-000001.tar"
    (copy / "manifest.json").write_text("{")
    assert run_patchgen("verify", copy).out.startswith("manifest.json: ")
    assert_one_line(run_patchgen("verify", tmp_path / "none"), "no such folder")
    assert run_patchgen("verify", copy, "--regenerate", 3).status == 2
    assert run_patchgen("verify", copy, "--fast", "--regenerate", 3, "--image", "x.png").status == 2


def test_diff_and_info(patchset_path: Path, manifest_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    assert run_patchgen("diff", patchset_path, manifest_path).out == "the same set\n"
    other = sign(edited(manifest_path, {"seed": 3}))
    result = run_patchgen("diff", patchset_path, other)
    assert result.status == 1 and "  seed: 0 → 3\n" in result.out and result.err == ""
    assert (
        json.loads(run_patchgen("diff", patchset_path, patchset_path, "--json").out)["patches"]["same_bytes"] == 200
    )
    for place in (patchset_path, manifest_path):
        result = run_patchgen("info", place)
        assert result.status == 0 and "200 of 32×32 px" in result.out and "no licence named" in result.out
    assert json.loads(run_patchgen("info", patchset_path, "--json").out)["n"] == 200
    assert_one_line(run_patchgen("info", tmp_path / "none.json"), "none.json: cannot be read")


def test_a_damaged_set_is_repaired_in_its_own_folder_even_in_two_attempts(
    patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import patchgen.build
    from patchgen.errors import PatchgenError

    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    (copy / "patches-000001.tar").write_bytes(b"damaged")
    command = ["rebuild", "--manifest", copy, "--image", photo_path, "--out", copy, "--workers", 1]

    def stop(*arguments: object) -> None:
        raise PatchgenError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(patchgen.build, "build_shards", stop)
        assert_one_line(run_patchgen(*command), "stopped here")
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
        ({"n": 10**6, "shards": 10**6}, "shards of 1000000 patches: expected at most 100000"),
        ({"size": 4096}, "patches of 4096 px: expected 8 to 1024"),
        ({"uneven": True}, "expected one size for all but the last"),
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
    command = ["rebuild", "--manifest", sign(manifest_path), "--image", photo_path, "--out", tmp_path / "out"]
    assert_one_line(run_patchgen(*command), part)


def test_extending_with_another_opencv_is_refused(
    patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    edited(copy / "manifest.json", {"environment": {"opencv-python-headless": "5.1.0"}})
    before = contents(copy)
    result = run_patchgen("extend", copy, "--n", 300, "--image", photo_path)
    assert_one_line(result, "written with OpenCV 5.x, here is 4.x")
    assert contents(copy) == before


@pytest.mark.parametrize(
    "change",
    [{"seed": -1}, {"seed": "a"}, {"size": 0}, {"size": 32.0}, {"shard_size": 20.5}, {"recipe": []}, {"x": 1}],
)
def test_a_damaged_marker_is_refused(
    photo_path: Path, tmp_path: Path, run_patchgen: Program, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    import patchgen.build
    from patchgen.errors import PatchgenError

    def stop(*arguments: object) -> None:
        raise PatchgenError("stopped here")

    monkeypatch.setattr(patchgen.build, "build_shards", stop)
    assert run_patchgen("build", "--image", photo_path, "--n", 20, "--out", tmp_path / "set").status == 1
    marker = tmp_path / "set" / PLAN_NAME
    marker.write_text(json.dumps(json.loads(marker.read_text()) | change))
    result = run_patchgen("extend", tmp_path / "set", "--n", 20, "--image", photo_path)
    assert_one_line(result, ".patchgen-build.json: is no build record: ")


def test_pipes_and_links_are_never_read(patchset_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    import os

    for name in ("patches-000000.tar", "patches-000000.parquet"):
        copy = Path(shutil.copytree(patchset_path, tmp_path / name))
        (copy / name).unlink()
        os.mkfifo(copy / name)
        for command in (
            ["preview", copy, "--out", tmp_path / "x.png"],
            ["diff", copy, patchset_path],
            ["verify", copy],
        ):
            assert_one_line(run_patchgen(*command), "")


def test_a_terminal_is_safe_from_what_a_manifest_says(manifest_path: Path, run_patchgen: Program) -> None:
    value = json.loads(manifest_path.read_bytes())
    value["sources"][0]["name"] = "a\x1b[31m\nset_id FAKE"
    manifest_path.write_text(json.dumps(value))
    out = run_patchgen("info", manifest_path).out
    assert "\x1b" not in out and "\nset_id FAKE" not in out and "\\x1b[31m" in out


def test_cards_of_several_photos(photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    other = write_image(tmp_path / "other.png", make_photo(seed=1))
    command = ["build", "--image", photo_path, "--image", other, "--n", 10, "--out", tmp_path / "out"]
    result = run_patchgen(*command, "--licence", "CC0-1.0", "--licence", "CC-BY-4.0", "--url", "https://example.org")
    assert result.status == 0
    cards = [(s.licence, s.url) for s in open_patchset(tmp_path / "out").manifest.sources]
    assert cards == [("CC0-1.0", "https://example.org"), ("CC-BY-4.0", "https://example.org")]
    result = run_patchgen(*command, *["--licence", "CC0-1.0"] * 3)
    assert_one_line(result, "--licence given 3 times for 2 images", status=2)


def test_json_of_what_was_built(photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    command = ["build", "--image", photo_path, "--n", 10, "--out", tmp_path / "out", "--json"]
    value = json.loads(run_patchgen(*command).out)
    assert value["set_id"] == open_patchset(tmp_path / "out").manifest.set_id and value["n"] == 10
