"""Test runs on remote sets: the weights equal those of a run on the local folder, even over a bad connection."""

from pathlib import Path
from typing import Any

import pytest

from manifests.format.digest import file_digest
from manifests.remote import download
from tests.conftest import Program, assert_one_line
from tests.helpers.running import same
from tests.helpers.servers import serving


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSET_CACHE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE", 0.0)


def with_url(arguments: list[Any], url: str) -> list[Any]:
    return [arguments[0], "--shards", url, *arguments[3:]]


def test_a_run_over_bad_connections_and_from_s3(
    arguments: list[Any], patchset_path: Path, tmp_path: Path, run_distill: Program, run_patchgen: Program, s3: Any
) -> None:
    assert run_distill(*arguments, tmp_path / "local").status == 0
    with serving(patchset_path, cut=50_000) as rough:
        rough.flips.update(["patches-000000.tar", "patches-000001.parquet"])
        ran = run_distill(*with_url(arguments, rough.url), tmp_path / "remote")
    assert ran.status == 0, ran.err
    assert same(tmp_path / "local", tmp_path / "remote")
    assert list((tmp_path / "cache" / "patchset").iterdir())
    for path in patchset_path.iterdir():
        s3.put_object(Bucket="lab", Key=f"set/{path.name}", Body=path.read_bytes())
    for cached in (tmp_path / "cache" / "patchset").iterdir():
        cached.rename(tmp_path / "cache" / "another")
    ran = run_distill(*with_url(arguments, "s3://lab/set"), tmp_path / "s3")
    assert ran.status == 0, ran.err
    assert same(tmp_path / "local", tmp_path / "s3")


def test_a_wrong_shard_trains_nothing(
    arguments: list[Any], patchset_path: Path, tmp_path: Path, run_distill: Program
) -> None:
    with serving(patchset_path) as rough:
        rough.flips["patches-000002.tar"] = 1000
        ran = run_distill(*with_url(arguments, rough.url), tmp_path / "run", "-q")
        assert_one_line(ran, f"{rough.url}/patches-000002.tar: sha256 is ", "(in two downloads)")
    assert not (tmp_path / "run").exists()


def test_other_options_are_checked_before_a_set_is_fetched(
    arguments: list[Any], patchset_path: Path, tmp_path: Path, run_distill: Program
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    nothing = tmp_path / "nothing"
    with serving(patchset_path) as rough:
        words = with_url(arguments, rough.url)[1:-1]
        train, label = ["train", *words, "--out"], ["make-logits", *words, "--out"]
        for command, told in (
            ([*train, tmp_path / "run", "--teacher", nothing], "nothing: the weight file does not exist"),
            ([*train, tmp_path / "run", "--teacher-logits", nothing], "nothing: labels.json is missing"),
            ([*train, tmp_path / "run", "--eval", nothing], "nothing: the evaluation data does not exist"),
            ([*train, tmp_path / "taken"], "taken: the folder is not empty"),
            ([*train, tmp_path / "taken", "--seeds", "0,1"], "taken: the folder is not empty"),
            ([*label, tmp_path / "labels", "--teacher", nothing], "nothing: the weight file does not exist"),
            ([*label, tmp_path / "taken"], "taken: the folder is not empty"),
            (["verify-logits", nothing, *words[:6]], "nothing: labels.json is missing"),
        ):
            assert_one_line(run_distill(*command), told)
        assert not rough.asked
    assert not (tmp_path / "run").exists() and not (tmp_path / "labels").exists()


@pytest.mark.parametrize("option", ["--out", "--teacher", "--teacher-logits", "--eval"])
def test_options_that_take_paths_take_no_urls(
    option: str, arguments: list[Any], tmp_path: Path, run_distill: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    ran = run_distill(*arguments[:-1], option, "s3://lab/run")
    assert_one_line(ran, f"'{option}': s3://lab/run: this is a URL, expected a path", status=2)
    table = run_distill("reproduce", "main", "--input", "photo=https://lab:secret@host/a.jpg")
    assert_one_line(table, "https://host/a.jpg: this is a URL, expected a path", status=2)
    assert set(tmp_path.iterdir()) == before


def test_logits_of_a_remote_set(
    arguments: list[Any], patchset_path: Path, tmp_path: Path, run_distill: Program
) -> None:
    words = arguments[1:-1]
    words = words[: words.index("--eval")] + words[words.index("--device") :]
    assert run_distill("make-logits", *words, "--out", tmp_path / "local").status == 0
    with serving(patchset_path, cut=50_000) as rough:
        words[1] = rough.url
        assert run_distill("make-logits", *words, "--out", tmp_path / "remote").status == 0
        checked = run_distill("verify-logits", tmp_path / "remote", *words, "--sample", 2)
    assert checked.status == 0, checked.err
    names = sorted(path.name for path in (tmp_path / "local").iterdir())
    assert [file_digest(tmp_path / "local" / n) for n in names] == [
        file_digest(tmp_path / "remote" / n) for n in names
    ]
