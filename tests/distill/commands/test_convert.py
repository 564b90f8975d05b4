"""Test ``distill convert``: the copy records the network, and no other file is overwritten."""

from pathlib import Path
from typing import Any

import pytest
import torch

from distill.weights.files import load_weights
from tests.conftest import Program, assert_one_line
from tests.helpers.foreign_networks import CifarResnet

NORM = ["--mean", "0.4914,0.4822,0.4465", "--std", "0.2023,0.1994,0.201"]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    torch.save({"net": CifarResnet("downsample", "fc").state_dict(), "epoch": 3}, tmp_path / "it's foreign.pth")
    return tmp_path / "it's foreign.pth"


@pytest.fixture
def arguments(foreign: Path, tmp_path: Path) -> list[Any]:
    return ["convert", foreign, "--arch", "resnet14-b", *NORM, "--out", tmp_path / "new file.safetensors"]


def test_the_copy_says_what_it_is(
    run_distill: Program, arguments: list[Any], eval_path: Path, tmp_path: Path
) -> None:
    """The copy records network, classes and normalization, so ``eval`` needs no further options."""
    result = run_distill(*arguments)
    out = tmp_path / "new file.safetensors"
    assert result.out.splitlines() == [
        f"{out}: resnet14-b, 10 classes, mean 0.4914,0.4822,0.4465, std 0.2023,0.1994,0.201",
        f"next: distill eval --weights '{out}' --data DATA",
    ]
    weights = load_weights(out)
    assert (weights.arch, weights.num_classes) == ("resnet14-b", 10)
    assert (weights.mean, weights.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201))
    before = run_distill("eval", "--weights", *arguments[1:-2], "--data", eval_path, "--json")
    assert (
        before.status == 0 and run_distill("eval", "--weights", out, "--data", eval_path, "--json").out == before.out
    )


def test_no_other_file_is_lost(run_distill: Program, arguments: list[Any], foreign: Path, tmp_path: Path) -> None:
    out = tmp_path / "new file.safetensors"
    assert run_distill(*arguments).status == run_distill(*arguments).status == 0
    out.write_bytes(b"precious")
    assert_one_line(run_distill(*arguments), str(out), "a file with other content exists", "choose another --out")
    assert out.read_bytes() == b"precious"
    before = foreign.read_bytes()
    assert_one_line(run_distill(*arguments[:-1], foreign), "ends in .safetensors")
    assert foreign.read_bytes() == before
    assert_one_line(run_distill(*arguments[:-1], tmp_path / "no" / "t.safetensors"), "choose another --out")
    (tmp_path / "folder.safetensors").mkdir()
    assert_one_line(run_distill(*arguments[:-1], tmp_path / "folder.safetensors"), "a file with other content exists")


def test_what_it_must_be_told(run_distill: Program, arguments: list[Any], foreign: Path, tmp_path: Path) -> None:
    """If a file does not record network and normalization, the options are required."""
    out = ["--out", tmp_path / "t.safetensors"]
    assert_one_line(
        run_distill("convert", foreign, *NORM, *out),
        "does not name its network; run 'distill convert' on it with --arch",
    )
    assert_one_line(run_distill("convert", foreign, "--arch", "resnet14-b", *out), "set --mean to the value that")
    wrong = run_distill("convert", foreign, "--arch", "resnet14", *NORM, *out)
    assert_one_line(wrong, "contains a resnet14-b, but arch is resnet14; use --arch resnet14-b")
    assert not (tmp_path / "t.safetensors").exists()


def test_a_file_of_ours_is_copied(run_distill: Program, teacher_path: Path, tmp_path: Path) -> None:
    assert run_distill("convert", teacher_path, "--out", tmp_path / "t.safetensors").status == 0
    assert (tmp_path / "t.safetensors").read_bytes() == teacher_path.read_bytes()


def test_the_eps_of_batch_norms_is_recorded(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "new file.safetensors"
    assert run_distill(*arguments, "--bn-eps", "0.001").status == 0
    assert load_weights(out).bn_eps == 0.001
    other = run_distill("convert", out, "--bn-eps", "0.1", "--out", tmp_path / "other.safetensors")
    assert_one_line(other, "declares bn_eps 0.001, but --bn-eps is 0.1; remove --bn-eps")
