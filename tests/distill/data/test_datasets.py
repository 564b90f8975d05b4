"""Test data sets of the user with objects that fail, and with class names of other types."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data import labelled
from distill.data.labelled import load_labelled
from distill.errors import DistillError

IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)


class Data:
    def __init__(self, item: Any, classes: Any = ()) -> None:
        self.item, self.classes = item, classes

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        if self.item is None:
            sys.exit(0)
        if isinstance(self.item, Exception):
            raise self.item
        return self.item


class BrokenError(Exception):
    def __str__(self) -> str:
        raise ValueError

    def __index__(self) -> int:
        raise OSError


@pytest.mark.parametrize(
    ("item", "part"),
    [
        ((torch.zeros(8, 8, 3, requires_grad=True), 0), "(your code) raised RuntimeError: Can't call numpy()"),
        ((torch.zeros(8, 8, 3, dtype=torch.bfloat16), 0), "(your code) raised TypeError: "),
        ((torch.zeros(8, 8, 3, device="meta"), 0), "(your code) raised TypeError: "),
        ((np.broadcast_to(IMAGE[:1, :1], (60_000, 60_000, 3)), 0), "the image has 60000×60000 px, expected at most"),
        ((IMAGE, BrokenError()), "expected a pair of an image and a class number"),
        (None, "(your code) raised SystemExit: 0; correct this code"),
        (BrokenError(), "(your code) raised BrokenError; correct this code"),
    ],
)
def test_items_that_fail(item: Any, part: str) -> None:
    with pytest.raises(DistillError, match=r"data set .*Data\[0\]") as caught:
        load_labelled(Data(item), None)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_that_pillow_cannot_decode(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DistillError, match=r"Data\[0\] \(your code\) raised OSError: image file is truncated"):
        load_labelled(Data((Image.open(path), 0)), None)


@pytest.mark.parametrize("classes", [["a", "b"], ("a", "b"), np.array(["a", "b"])])
def test_class_names(classes: Any) -> None:
    assert load_labelled(Data((IMAGE, 0), classes), None).names == ("a", "b")


@pytest.mark.parametrize("classes", ["ab", {"a": 0}, [0, 1], None])
def test_what_is_no_class_names(classes: Any) -> None:
    assert load_labelled(Data((IMAGE, 0), classes), None).names == ()


def test_a_generator_is_no_data_set() -> None:
    with pytest.raises(DistillError, match="data set builtins:generator: has no __len__ and __getitem__"):
        load_labelled((pair for pair in [(IMAGE, 0)]), None)  # type: ignore[arg-type]


def test_training_images_that_need_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "free_memory", lambda: 200)
    with pytest.raises(DistillError, match=r"the images need 0.0 GB of memory, but 0.0 GB are free; set a smaller"):
        load_labelled(Data((IMAGE, 0)), None, "train")
