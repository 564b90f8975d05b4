"""Test the results and the output of the commands that inspect a set."""

import json
import shutil
from pathlib import Path

import pytest

from manifests import open_patchset
from tests.conftest import Program, assert_one_line, make_photo, write_image
from tests.helpers.editing import edited
from tests.helpers.resign import resign, resign_manifest


def test_patches_built_again(patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    command = ["verify", patchset_path, "--regenerate", 50, "--image", photo_path]
    result = run_patchgen(*command)
    assert result.status == 0 and "good: 50 of 200 patches built again from the photo" in result.out
    assert json.loads(run_patchgen(*command, "--json").out)["patches_regenerated"] == 50
    # Only --regenerate finds a set that is consistent, but whose manifest declares a wrong seed.
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    resign(copy, lambda value: value.update(seed=3), exports=True)
    assert run_patchgen("verify", copy).status == 0
    result = run_patchgen("verify", copy, "--regenerate", 3, "--image", photo_path)
    assert_one_line(result, "6 faults")
    assert result.out.count("the rebuilt patch has the pixels digest") == 3


def test_verify_prints_what_is_wrong(patchset_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    good = run_patchgen("verify", patchset_path)
    assert good.status == 0 and "good: every file, member, row and digest of 200 patches in 3 shards" in good.out
    assert "names, sizes and counts" in run_patchgen("verify", patchset_path, "--fast").out
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    (copy / "patches-000001.tar").unlink()
    bad = run_patchgen("verify", copy)
    assert_one_line(bad, "1 fault;")
    assert bad.out == "patches-000001.tar: the file is missing; download the set again or rebuild it\n"
    value = json.loads(run_patchgen("verify", copy, "--json").out)
    assert not value["good"] and value["faults"][0]["file"] == "patches-000001.tar"
    (copy / "manifest.json").write_text("{")
    assert run_patchgen("verify", copy).out.startswith("manifest.json: ")
    assert_one_line(run_patchgen("verify", tmp_path / "none"), "the folder does not exist")
    assert run_patchgen("verify", copy, "--regenerate", 3).status == 2
    assert run_patchgen("verify", copy, "--fast", "--regenerate", 3, "--image", "x.png").status == 2


@pytest.mark.parametrize("name", ["SHA256SUMS", "index.json", "croissant.json"])
def test_what_export_writes_again_asks_for_no_new_set(
    name: str, patchset_path: Path, tmp_path: Path, run_patchgen: Program
) -> None:
    copy = Path(shutil.copytree(patchset_path, tmp_path / "copy"))
    (copy / name).write_text("{}")
    (copy / name).unlink() if name != "index.json" else None
    found = run_patchgen("verify", copy)
    assert_one_line(found, "run 'patchgen export'")
    assert "rebuild" not in found.err + found.out and "run 'patchgen export' to write it again" in found.out
    (copy / "patches-000001.tar").unlink()
    assert_one_line(run_patchgen("verify", copy), "rebuild the set, or copy the files with faults from a good copy")
    shutil.copy(patchset_path / "patches-000001.tar", copy)
    assert run_patchgen("export", copy).status == 0 and run_patchgen("verify", copy).status == 0


def test_diff_and_info(patchset_path: Path, manifest_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    assert run_patchgen("diff", patchset_path, manifest_path).out == "the same set\n"
    other = resign_manifest(edited(manifest_path, {"seed": 3}))
    result = run_patchgen("diff", patchset_path, other)
    assert result.status == 1 and "  seed: 0 → 3\n" in result.out and result.err == ""
    assert (
        json.loads(run_patchgen("diff", patchset_path, patchset_path, "--json").out)["patches"]["same_bytes"] == 200
    )
    for place in (patchset_path, manifest_path):
        result = run_patchgen("info", place)
        assert result.status == 0 and "200 of 32×32 px" in result.out and "no license given" in result.out
    assert json.loads(run_patchgen("info", patchset_path, "--json").out)["n"] == 200
    texts = {"name": "a\u009b2Jb\u202ec"}
    strange = resign_manifest(edited(manifest_path, {"environment": texts}))
    result = run_patchgen("info", strange, "--json")
    assert result.out.isascii() and json.loads(result.out)["environment"].items() >= texts.items()
    assert_one_line(run_patchgen("info", tmp_path / "none.json"), "none.json: the file cannot be read")


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
    result = run_patchgen(*command, "--license", "CC0-1.0", "--license", "CC-BY-4.0", "--url", "https://example.org")
    assert result.status == 0
    cards = [(s.licence, s.url) for s in open_patchset(tmp_path / "out").manifest.sources]
    assert cards == [("CC0-1.0", "https://example.org"), ("CC-BY-4.0", "https://example.org")]
    result = run_patchgen(*command, *["--license", "CC0-1.0"] * 3)
    assert_one_line(result, "--license was given 3 times for 2 images", status=2)


def test_json_of_what_was_built(photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    command = ["build", "--image", photo_path, "--n", 10, "--out", tmp_path / "out", "--json"]
    value = json.loads(run_patchgen(*command).out)
    assert value["set_id"] == open_patchset(tmp_path / "out").manifest.set_id and value["n"] == 10
