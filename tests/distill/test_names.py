"""Test folder names that are not UTF-8, and names that a shell would split."""

import itertools
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distill.data.labelled import load_labelled
from manifests.support.console import shell_word
from tests.conftest import Program, assert_one_line
from tests.distill.commands.test_train_teacher import CONFIG

CLASS = os.fsdecode(b"caf\xe9")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write eight images for each of two classes in each split, and return the folder.

    The name of one class folder is not UTF-8.
    """
    rng = np.random.default_rng(0)
    for split, name in itertools.product(("train", "test"), (CLASS, "dog")):
        for number in range(8):
            path = tmp_path / "data" / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            with path.open("wb") as file:
                Image.fromarray(pixels).save(file, "PNG")
    return tmp_path / "data"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    value = CONFIG | {"network": {"arch": "resnet8", "num_classes": 2}}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(value | {"train": {"samples": 16, "precision": "fp32"}}))
    return path


def test_a_class_whose_name_is_no_text_has_a_report(
    tmp_path: Path, data: Path, config: Path, run_distill: Program
) -> None:
    run = tmp_path / "run"
    command = ("train-teacher", "--data", data, "--eval", data, "--config", config, "--out", run)
    result = run_distill(*command)
    assert result.status == 0, result.err
    assert f"report: {run / 'report.html'}" in result.out and "no report" not in result.out
    assert json.loads((run / "classes.json").read_text())["names"] == ["caf\\xe9", "dog"]
    assert "caf\\xe9" in (run / "report.html").read_text()
    assert run_distill("report", run).status == 0
    assert run_distill(*command, "--resume").status == 0
    measured = run_distill("eval", "--weights", run / "teacher.safetensors", "--data", data, "--per-class")
    assert measured.status == 0 and "caf\\xe9: top-1" in measured.out
    measured = run_distill("eval", "--weights", run / "teacher.safetensors", "--data", data, "--json")
    assert json.loads(measured.out)["classes"] == ["caf\\xe9", "dog"]


def test_names_of_classes_are_text(data: Path) -> None:
    """Bytes of a folder name that are not UTF-8 are escaped in the class name."""
    names = load_labelled(data, None).names
    assert names == ("caf\\xe9", "dog")
    assert [name.encode() for name in names]


def test_a_run_directory_whose_weights_could_not_be_read_is_refused(
    tmp_path: Path, data: Path, config: Path, run_distill: Program
) -> None:
    """A run directory with a path that is not UTF-8 is refused.

    The library safetensors could not read weight files in this directory.
    """
    out = tmp_path / CLASS
    for more in ((), ("--seeds", "0,1")):
        result = run_distill("train-teacher", "--data", data, "--config", config, "--out", out, *more)
        assert_one_line(result, "the path is not UTF-8 text", "choose another --out")
    assert not list(tmp_path.glob("caf*/*.pt"))


@pytest.mark.parametrize(
    "name", [CLASS, "a b", "it's", "$HOME", "new\nline", "\x1b[31m", "tab\there", "été", "x\\y'\n"]
)
def test_an_advised_command_can_be_copied(tmp_path: Path, name: str) -> None:
    """A shell reads the quoted name as the original name."""
    word = shell_word(name)
    assert word.isprintable()
    echoed = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert echoed.stdout == os.fsencode(name)
