"""Test the sentences of a report about one run, and the mean over several runs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from distill.report.chart import TEMPLATES
from distill.report.page import without_folders
from distill.report.run_files import AugmentPart
from tests.conftest import Program


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (
            {"flip": True, "pad_crop": 4, "cutmix_alpha": 0.25},
            "moved by up to 4 px, mirrored half of the time, mixed with others (CutMix)",
        ),
        (
            {"resized_crop": [0.08, 1.0], "jitter": {"p": 0.5}},
            "cropped at random and resized, changed in color",
        ),
        (
            {"grayscale": 1.0, "solarize": 0.2, "mixup_alpha": 1.0},
            "turned gray, solarized in 20% of cases, mixed with others (MixUp)",
        ),
        ({"grayscale": 0.0}, ""),
    ],
)
def test_augmentations_in_words(augment: dict[str, Any], words: str) -> None:
    template: Any = TEMPLATES.get_template("words.j2").module
    assert (
        template.augmentation(AugmentPart.model_validate({"pad_crop": 0, "flip": False, "cutmix_alpha": 0} | augment))
        == words
    )


def test_a_page_tells_nothing_of_its_writers_folders() -> None:
    """Paths on a page are shortened to the name of the file."""
    text = "teacher:\n  weights: /home/ada/t.safetensors\ndata:\n  cache_dir: '/home/a da/cache'\nx: a/b\n"
    assert without_folders(text) == "teacher:\n  weights: …/t.safetensors\ndata:\n  cache_dir: …/cache'\nx: a/b\n"


def test_a_run_in_words(run_distill: Program, arguments: list[Any], tmp_path: Path) -> None:
    config = ["--set", "augment.grayscale=1", "--seeds", "0,1"]
    assert run_distill(*arguments, tmp_path / "two", *config).status == 0
    page = (tmp_path / "two" / "seed0" / "report.html").read_text()
    assert "A resnet8 was trained on 192 samples of 200 patches of photo.png, with the outputs of a resnet8" in page
    assert "It was evaluated on 20 images of 4 classes" in page and "turned gray" in page
    assert str(tmp_path) not in page
    shutil.copytree(tmp_path / "two" / "seed0", tmp_path / "copy")
    result = run_distill("report", tmp_path / "two", tmp_path / "copy", "--out", tmp_path / "all.html")
    assert [line.split(":")[0] for line in result.out.splitlines()] == ["two/seed0", "two/seed1", "copy", "report"]
    page = (tmp_path / "all.html").read_text()
    assert "deviation of seeds 0, 1<" in page or "deviation of seeds 1, 0<" in page  # seed 0 is counted once
