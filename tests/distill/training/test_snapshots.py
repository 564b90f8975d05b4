"""Test snapshots: the weights at given numbers of samples, also of runs that are resumed or extended."""

from pathlib import Path
from typing import Any

import pytest

import distill
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import MEAN, Stopping
from tests.helpers.running import same, timeless

CONSTANT = ["--set", "optim.schedule=constant", "--set", "train.ema=0.9"]


def samples(number: int) -> list[str]:
    return ["--set", f"train.samples={number}"]


def names(run: Path) -> list[str]:
    return sorted((path.name for path in (run / "snapshots").iterdir()), key=lambda name: int(name.split(".")[0]))


def test_a_snapshot_is_the_student_of_a_shorter_run(
    run_distill: Program, arguments: list[Any], tmp_path: Path, stopping: Stopping, eval_path: Path
) -> None:
    """The run is stopped, resumed and extended. It is the run without snapshots."""
    for number in (96, 160, 240):
        assert run_distill(*arguments, tmp_path / str(number), *CONSTANT, *samples(number)).status == 0
    kept = ["--set", "train.snapshots=[90, 150, 160]"]
    command = [*arguments, tmp_path / "run", *CONSTANT]
    with stopping(7):
        assert run_distill(*command, *samples(160), *kept).status == 130
    assert run_distill(*command, *samples(160), *kept, "--resume").status == 0
    assert names(tmp_path / "run") == ["96.safetensors", "160.safetensors"]
    assert same(tmp_path / "run", tmp_path / "160")
    later = ["--set", "train.snapshots=80"]
    extended = run_distill(*command, *samples(246), *later, "--resume")
    assert extended.status == 0 and "1 snapshot before step 10, where the run continues, cannot be" in extended.out
    assert same(tmp_path / "run", tmp_path / "240") and timeless(tmp_path / "run")[-1]["samples"] == 240
    assert names(tmp_path / "run") == ["96.safetensors", "160.safetensors", "240.safetensors"]
    for number in (96, 160, 240):
        snapshot = tmp_path / "run" / "snapshots" / f"{number}.safetensors"
        assert snapshot.read_bytes() == (tmp_path / str(number) / "student.safetensors").read_bytes()
    measured = run_distill("eval", "--weights", snapshot, "--data", eval_path, "--device", "cpu")
    assert measured.status == 0 and "top-1" in measured.out
    assert distill.load_network(snapshot).mean == MEAN


def test_snapshots_every_n_samples(run_distill: Program, tmp_path: Path, config_path: Path, train_path: Path) -> None:
    config_path.write_text(
        "network: {arch: resnet8, num_classes: 4}\noptim: {name: sgd, lr: 0.05}\ndata: {batch_size: 16}\n"
        "train: {samples: 100, precision: fp32, snapshots: 4e1}\n"
    )
    run = tmp_path / "run"
    command = ["train-teacher", "--data", train_path, "--config", config_path, "--device", "cpu", "--out", run]
    assert run_distill(*command).status == 0
    assert names(run) == ["48.safetensors", "80.safetensors"]
    again = run_distill(*command, "--resume", "--set", "train.snapshots=100")
    assert again.status == 0 and "already finished" in again.out


def test_a_snapshot_at_the_end_of_a_run_with_a_rest(
    run_distill: Program, arguments: list[Any], tmp_path: Path
) -> None:
    """A run has whole batches, so its last step is also that of the samples in the rest."""
    kept = ["--set", "train.snapshots=[100]"]
    assert run_distill(*arguments, tmp_path / "run", *samples(100), *kept).status == 0
    assert names(tmp_path / "run") == ["96.safetensors"]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("[50, 101]", ("train.snapshots: 101 samples are more than the 100 samples of the run; set",)),
        ("200", ("200 samples are more than",)),
        ("[50, 20]", ("train.snapshots: is [50, 20], expected increasing numbers of samples", "; correct")),
        ("[]", ("train.snapshots: is []",)),
        ("[1.5]", ("is [1.5]",)),
        ("0", ("is 0,",)),
        ("true", ("is True",)),
        ("often", ("is often",)),
        ("{a: 1}", ("is {'a': 1}",)),
        ("[.inf]", ("is [inf]",)),
        ("1e400", ("is inf",)),
    ],
)
def test_wrong_snapshots_are_one_line(
    run_distill: Program, arguments: list[Any], tmp_path: Path, value: str, parts: tuple[str, ...]
) -> None:
    result = run_distill(*arguments, tmp_path / "run", *samples(100), "--set", f"train.snapshots={value}")
    assert_one_line(result, *parts)
    assert not (tmp_path / "run").exists()
