"""Test the words of messages: files have the names that the user wrote, and a count of one is singular."""

import re
from pathlib import Path

import pytest
import yaml

from manifests.support.counts import counted
from tests.conftest import Program, assert_one_line, make_photo, write_image
from tests.distill.commands.test_train_teacher import CONFIG


@pytest.mark.parametrize("command", ["train", "train-teacher", "make-logits"])
@pytest.mark.parametrize("name", ["y.yaml", "sub/y.yaml", "y.yml", "y"])
def test_a_config_is_called_as_it_was_given(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patchset_path: Path,
    run_distill: Program,
    command: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("optim: [1")
    source = ("--data", patchset_path) if command == "train-teacher" else ("--shards", patchset_path)
    assert_one_line(run_distill(command, *source, "--config", name, "--out", "run"), f"distill: config {name}: ")


def test_a_table_is_called_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_distill: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("rows: [")
    assert_one_line(run_distill("reproduce", "mine.yaml"), "distill: table mine.yaml: ")


@pytest.mark.parametrize(
    ("count", "what", "spec", "said"),
    [
        (1, "shard", "", "1 shard"),
        (0, "shard", "", "0 shards"),
        (2, "patch", "", "2 patches"),
        (2, "class", "", "2 classes"),
        (2, "entry", "", "2 entries"),
        (2, "array", "", "2 arrays"),
        (2, "training image", "", "2 training images"),
        (1, "patch", ",", "1 patch"),
        (1234567, "patch", ",", "1,234,567 patches"),
    ],
)
def test_counts(count: int, what: str, spec: str, said: str) -> None:
    assert counted(count, what, spec) == said


PLURAL_OF_ONE = re.compile(
    r"(?<![\d.,×-])1 (?:training |reference |more )?"
    r"(?:patches|classes|images|shards|samples|steps|seeds|runs|jobs|rows|faults|bytes|files|photos|workers)\b(?!/s)"
)


def test_a_set_of_one_patch_is_told_in_the_singular(
    tmp_path: Path, photo_path: Path, run_patchgen: Program, run_distill: Program
) -> None:
    one, two, image = tmp_path / "one", tmp_path / "two", ("--image", photo_path)
    build = ("build", *image, "--n", 1, "--workers", 1, "--out", one)
    told = [run_patchgen(*build)]
    assert "1 patch of 32 px in 1 shard, " in told[0].out
    told += [
        run_patchgen("build", *image, "--n", 1, "--shards", "0", "--out", tmp_path / "part", "-v"),
        run_patchgen("build", *image, "--n", 1, "--seed", 1, "--workers", 1, "--out", two, "-v"),
        run_patchgen(*build[:4], 2, *build[5:]),
        run_patchgen("verify", one, "--regenerate", 1, *image),
        run_patchgen("info", one),
        run_patchgen("diff", one, two),
        run_patchgen("diff", one, one),
        run_patchgen("rebuild", "--manifest", one, *image, "--out", tmp_path / "copy", "--workers", 1),
        run_patchgen("export", one),
        run_patchgen("preview", one, *image, "--out", tmp_path / "sheet.png"),
    ]
    (one / next(path.name for path in one.glob("*.tar"))).write_bytes(b"x")
    told.append(run_patchgen("verify", one))
    assert "1 byte, the manifest declares " in told[-1].out
    card = (two / "README.md").read_text()
    assert "# 1 patch of a single image" in card and ": 1 RGB image of 32×32 pixels" in card
    for text in [card, *(result.out + result.err for result in told)]:
        assert PLURAL_OF_ONE.search(text) is None, text


def test_a_run_of_one_step_is_told_in_the_singular(tmp_path: Path, run_distill: Program) -> None:
    data = tmp_path / "data"
    for name in ("a", "b"):
        (data / "train" / name).mkdir(parents=True)
        write_image(data / "train" / name / "0.png", make_photo(32, 32))
    (data / "test" / "a").mkdir(parents=True)
    (data / "test" / "b").mkdir(parents=True)
    write_image(data / "test" / "a" / "0.png", make_photo(32, 32, seed=1))
    value = CONFIG | {"network": {"arch": "resnet8", "num_classes": 2}, "data": {"batch_size": 2}}
    config = tmp_path / "one.yaml"
    config.write_text(yaml.safe_dump(value | {"train": {"samples": 2, "precision": "fp32"}}))
    run = tmp_path / "run"
    told = [run_distill("train-teacher", "--data", data, "--eval", data, "--config", config, "--out", run, "-v")]
    assert told[0].status == 0, told[0].err
    told.append(run_distill("eval", "--weights", run / "teacher.safetensors", "--data", data))
    assert "on 1 image of 1 class in " in told[-1].out
    told.append(run_distill("report", run))
    page = re.sub(r"<[^>]*>", " ", (run / "report.html").read_text())
    assert "It was evaluated on 1 image of 1 class" in page
    for text in [page, *(result.out + result.err for result in told)]:
        found = PLURAL_OF_ONE.search(text)
        assert found is None, text[max(0, found.start() - 100) : found.end() + 100]
