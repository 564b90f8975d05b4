"""Test that a finished run can be extended, and is then the run that had the larger number from the start."""

import json
from pathlib import Path
from typing import Any

import pytest

from manifests.support import user_code
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import Stopping
from tests.helpers.running import same, timeless

SHORT, LONG = 160, 352  # samples: 10 and 22 steps
CONSTANT = ["--set", "optim.schedule=constant", "--set", "train.log_steps=5", "--set", "train.ema=0.9"]


def length(samples: int) -> list[str]:
    return ["--set", f"train.samples={samples}"]


STAIRS = """
def stairs(step, steps):
    return 0.5 ** (step // 5)


def falls(step, steps):
    return 1 - step / steps
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_stairs.py").write_text(STAIRS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(user_code, "_allowed", {"mine_stairs"})


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--set", "optim.warmup=64", "--set", "optim.name=Muon", "--set", "eval.every=80"],
        ["--set", "optim.schedule=mine_stairs:stairs", "--set", "data.cache=none"],
    ],
)
def test_an_extended_run_is_the_longer_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, more: list[str]
) -> None:
    """Also where the extension is stopped and resumed."""
    given = [*CONSTANT, *more]
    assert run_distill(*arguments, tmp_path / "long", *given, *length(LONG)).status == 0
    assert run_distill(*arguments, tmp_path / "run", *given, *length(SHORT)).status == 0
    finished = json.loads((tmp_path / "run/summary.json").read_text())
    with stopping(14):
        extended = run_distill(*arguments, tmp_path / "run", *given, *length(LONG), "--resume")
    assert extended.status == 130 and "the run is extended from 160 to 352 samples" in extended.out
    assert not (tmp_path / "run/summary.json").exists()
    old = run_distill(*arguments, tmp_path / "run", *given, *length(SHORT), "--resume")
    assert_one_line(old, "the run has 352 samples, and cannot have 160: only a larger number extends a run; resume")
    again = run_distill(*arguments, tmp_path / "run", *given, *length(LONG), "--resume")
    assert (
        again.status == 0
        and "is extended from" not in again.out
        and "the run continues at step 15 of 22" in again.out
    )
    assert same(tmp_path / "long", tmp_path / "run")
    assert timeless(tmp_path / "long") == timeless(tmp_path / "run")
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("long", "run")]
    for summary in (*summaries, finished):
        for key in ("seconds", "images_per_second"):
            summary.pop(key)
    assert summaries[0] == summaries[1] != finished and summaries[1]["samples_seen"] == LONG
    text = (tmp_path / "run/config.yaml").read_text()
    assert text == (tmp_path / "long/config.yaml").read_text() and (tmp_path / "run/report.html").exists()
    done = run_distill(*arguments, tmp_path / "run", *given, *length(LONG), "--resume")
    assert done.status == 0 and "already finished" in done.out
    few_more = run_distill(*arguments, tmp_path / "run", *given, *length(LONG + 5), "--resume")
    assert few_more.status == 0 and "already finished" in few_more.out


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["optim.schedule=cosine"], "the schedule cosine (optim.schedule) depends on the length of the run"),
        (["optim.schedule=onecycle"], "the schedule onecycle"),
        (["optim.schedule=linear", "optim.warmup=32"], "the schedule linear"),
        (["optim.schedule=milestones", "optim.milestones=[0.5]"], "the schedule milestones"),
        (["optim.schedule=constant", "optim.warmup=0.2"], "the schedule constant with this warm-up"),
        (["optim.schedule=mine_stairs:falls"], "the schedule mine_stairs:falls"),
        (["optim.schedule=constant", "data.passes=2"], "data.passes is 2, so its batches have repeated"),
    ],
)
def test_a_run_that_depends_on_its_length_is_not_extended(
    run_distill: Program, arguments: list[Any], tmp_path: Path, more: list[str], why: str
) -> None:
    sets = [word for setting in more for word in ("--set", setting)]
    assert run_distill(*arguments, tmp_path / "run", *sets, *length(SHORT)).status == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    refused = run_distill(*arguments, tmp_path / "run", *sets, *length(LONG), "--resume")
    assert_one_line(refused, "checkpoint.safetensors: the run has 160 samples, and cannot have 352", why, "; choose")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    other = [*sets, *length(LONG), "--set", "train.precision=bf16"]
    assert_one_line(run_distill(*arguments, tmp_path / "run", *other, "--resume"), "train.precision was fp32")


def test_a_stopped_run_before_its_first_milestone_is_extended(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping
) -> None:
    """The steps so far are the same in the longer run, so its learning rates are exact."""
    sets = ["--set", "optim.schedule=milestones", "--set", "optim.milestones=[0.5]"]
    assert run_distill(*arguments, tmp_path / "long", *sets, *length(LONG)).status == 0
    with stopping(3):
        assert run_distill(*arguments, tmp_path / "run", *sets, *length(SHORT)).status == 130
    assert run_distill(*arguments, tmp_path / "run", *sets, *length(LONG), "--resume").status == 0
    assert same(tmp_path / "long", tmp_path / "run") and timeless(tmp_path / "long") == timeless(tmp_path / "run")


def test_all_seeds_are_extended(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    assert run_distill(*arguments, out, *CONSTANT, *length(SHORT), "--seeds", "0,1").status == 0
    some = run_distill(*arguments, out, *CONSTANT, *length(LONG), "--seeds", "0", "--resume")
    assert_one_line(some, "seed1: train.samples is 160 here and 352 in the new run")
    every = run_distill(*arguments, out, *CONSTANT, *length(LONG), "--seeds", "0,1", "--resume")
    assert every.status == 0, every
    assert run_distill(*arguments, tmp_path / "long", *CONSTANT, *length(LONG), "--set", "train.seed=1").status == 0
    assert same(out / "seed1", tmp_path / "long")


def test_a_run_from_labels_is_extended(
    run_distill: Program, tmp_path: Path, config_path: Path, train_path: Path
) -> None:
    config_path.write_text(
        "network: {arch: resnet8, num_classes: 4}\noptim: {name: sgd, lr: 0.05}\n"
        "data: {batch_size: 16}\ntrain: {epochs: 4, precision: fp32}\n"
    )
    command = ["train-teacher", "--data", train_path, "--config", config_path, "--device", "cpu", "--out"]
    for name, epochs in (("long", 9), ("run", 4), ("run", 9)):
        options = ["--set", f"train.epochs={epochs}", "--resume"] if name == "run" else ["--set", "train.epochs=9"]
        assert run_distill(*command, tmp_path / name, *options).status == 0
    assert (tmp_path / "run/teacher.safetensors").read_bytes() == (tmp_path / "long/teacher.safetensors").read_bytes()
