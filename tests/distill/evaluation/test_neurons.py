"""Test images that maximize a logit, and the command ``distill visualize``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from distill.commands.visualize import _sheet
from distill.evaluation.neurons import excite
from distill.weights.files import tensors_digest
from tests.conftest import Program, assert_one_line

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)


class Channels(nn.Module):
    """A network of three classes. Its logits are the means of the red, green and blue channels of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.norm(x).mean(dim=(2, 3))


def images(network: nn.Module, seed: int = 0, steps: int = 40) -> Tensor:
    return excite(
        *(network, torch.arange(3), 16, (MEAN, STD)), steps=steps, seed=seed, update=lambda done, note="": None
    )


def test_each_image_raises_its_own_logit() -> None:
    network = Channels().eval()
    before = tensors_digest(network.state_dict())
    found = images(network)
    assert found.shape == (3, 16, 16, 3) and found.dtype == torch.uint8
    colours = found.float().mean(dim=(1, 2))  # [i, j]: mean of channel j in image i
    assert torch.equal(colours.argmax(dim=0), torch.arange(3))
    assert tensors_digest(network.state_dict()) == before
    assert torch.equal(images(network), found)
    assert not torch.equal(images(network, seed=1), found)


def test_pictures_of_a_run_come_into_its_report(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_distill(*arguments, run).status == 0
    result = run_distill("visualize", run, "--steps", 3, "--classes", "0,3")
    assert result.status == 0, result.err
    assert result.out.splitlines() == [
        *(f"picture: {run / f'neurons-{role}.png'}" for role in ("student", "teacher")),
        f"next: distill report {run} --image PHOTO",
    ]
    with Image.open(run / "neurons-student.png") as picture:
        assert picture.size == (2 * 96 + 4, 96 + 18)
    assert run_distill("report", run).status == 0
    assert "Images that maximize each class" in (run / "report.html").read_text()

    assert_one_line(run_distill("visualize", run, "--classes", "4"), "the network has classes 0 to 3")
    assert_one_line(run_distill("visualize", run, "--arch", "resnet8"), "--arch is only for a weight file", status=2)
    weights = run / "student.safetensors"
    assert_one_line(run_distill("visualize", weights, "--teacher", weights), "--teacher is only for a run", status=2)
    picture_path = tmp_path / "x.png"
    assert run_distill("visualize", weights, "--steps", 2, "--out", picture_path).status == 0
    assert picture_path.exists()
    assert_one_line(run_distill("visualize", weights, "--steps", 2, "--out", run / "no" / "x.png"), "another --out")


def test_a_teacher_that_moved_and_a_run_that_goes_on(
    run_distill: Program, arguments: list[Any], tmp_path: Path, teacher_path: Path
) -> None:
    """If the teacher's file has moved, ``--teacher`` sets the new path. Unfinished and old runs are refused."""
    run = tmp_path / "run"
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(teacher_path.read_bytes())
    changed = [moved if argument == teacher_path else argument for argument in arguments]
    assert run_distill(*changed, run).status == 0
    moved.unlink()
    result = run_distill("visualize", run, "--steps", 2)
    assert result.status == 0 and "name the file with --teacher" in result.out
    assert not (run / "neurons-teacher.png").exists()
    assert run_distill("visualize", run, "--steps", 2, "--teacher", teacher_path).status == 0
    assert (run / "neurons-teacher.png").exists()
    other = tmp_path / "other.safetensors"
    other.write_bytes((run / "student.safetensors").read_bytes())
    assert_one_line(run_distill("visualize", run, "--steps", 2, "--teacher", other), "other.safetensors: sha256 is")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({key: value for key, value in summary.items() if key != "size"}))
    assert_one_line(run_distill("visualize", run), "the summary has no image size")
    (run / "summary.json").unlink()
    assert_one_line(run_distill("visualize", run), "the run has not finished")


def test_labels_fit_below_their_images() -> None:
    tiles = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
    plain = np.asarray(_sheet(tiles, ["", "", ""]))
    for text in ("immunohistochemistry of a whole slide", "W" * 60):
        sheet = np.asarray(_sheet(tiles, ["", text, ""]))
        changed = np.flatnonzero((sheet != plain).any(axis=(0, 2)))
        assert changed.min() >= 100 and changed.max() < 196  # columns of the second tile


@pytest.mark.parametrize("text", ["a", "-1", "1,,2"])
def test_classes_are_numbers(text: str, run_distill: Program, tmp_path: Path) -> None:
    assert_one_line(run_distill("visualize", tmp_path, f"--classes={text}"), "--classes", status=2)
