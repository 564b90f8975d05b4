"""Test data sets of torchvision by name, from small files in the layout of each data set."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from distill.data import labelled
from distill.data.labelled import load_labelled
from distill.errors import DistillError
from tests.conftest import Program, assert_one_line

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)


def save(index: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS[index]).save(path, "PNG")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    base = tmp_path / "pets" / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for index in range(6):
        save(index, base / "images" / f"{'big_cat' if index % 2 else 'dog'}_{index}.jpg")
    rows = [f"{'big_cat' if index % 2 else 'dog'}_{index} {index % 2 + 1} 1 1" for index in range(6)]
    (base / "annotations" / "trainval.txt").write_text("\n".join(rows[:4]) + "\n")
    (base / "annotations" / "test.txt").write_text("\n".join(rows[4:]) + "\n")
    return tmp_path / "pets"


@pytest.mark.parametrize("streamed", [False, True])
def test_pets(pets: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if streamed:
        monkeypatch.setattr(labelled, "MAX_HELD_BYTES", 0)
    data = load_labelled(Path(f"torchvision:OxfordIIITPet:{pets}"), None)
    assert torch.equal(data.images, torch.from_numpy(PIXELS[4:])) and data.labels.tolist() == [0, 1]
    assert data.names == ("Dog", "Big Cat") and f"torchvision:OxfordIIITPet:{pets}" in str(data)
    assert load_labelled(Path(f"torchvision:OxfordIIITPet:{pets}"), None, "train").labels.tolist() == [0, 1, 0, 1]


def test_imagenet(tmp_path: Path) -> None:
    wnids = ["n01", "n02", "n03"]
    torch.save(({wnid: (wnid.upper(), "name") for wnid in wnids}, wnids), tmp_path / "meta.bin")
    for index in range(6):
        save(index, tmp_path / "val" / wnids[index % 3] / f"{index}.JPEG")
    data = load_labelled(Path(f"torchvision:ImageNet:{tmp_path}"), None)
    assert data.names == tuple(wnids) and data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(data.images, torch.from_numpy(PIXELS[[0, 3, 1, 4, 2, 5]]))
    folders = load_labelled(tmp_path, None)  # the same images as class folders
    assert (folders.sha256, folders.names) == (data.sha256, data.names)


def test_food(tmp_path: Path) -> None:
    for index in range(6):
        save(index, tmp_path / "food-101" / "images" / "ab"[index % 2] / f"{index}.jpg")
    (tmp_path / "food-101" / "meta").mkdir()
    split = {"a": ["a/0", "a/2"], "b": ["b/1"]}
    for name in ("train", "test"):
        (tmp_path / "food-101" / "meta" / f"{name}.json").write_text(json.dumps(split))
    data = load_labelled(Path(f"torchvision:Food101:{tmp_path}"), None)
    assert data.names == ("a", "b") and torch.equal(data.images, torch.from_numpy(PIXELS[[0, 2, 1]]))


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)  # compares MD5 sums
    base = tmp_path / "stl10_binary"
    base.mkdir()
    pixels = RNG.integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    (base / "test_X.bin").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
    (base / "test_y.bin").write_bytes(bytes([1, 2, 10, 1]))
    (base / "class_names.txt").write_text("airplane\nbird\n")
    data = load_labelled(Path(f"torchvision:STL10:{tmp_path}"), None)
    assert torch.equal(data.images, torch.from_numpy(pixels)) and data.labels.tolist() == [0, 1, 9, 0]
    assert data.names == ("airplane", "bird")


def test_cifar_is_read_without_its_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", None)
    records = np.hstack([np.arange(6, dtype=np.uint8)[:, None], RNG.integers(0, 256, (6, 3072), dtype=np.uint8)])
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes())
    assert load_labelled(Path(f"torchvision:CIFAR10:{tmp_path}"), None).labels.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("torchvision:STL10", "expected torchvision:NAME:ROOT"),
        ("torchvision:STL1:{0}", "no data set 'STL1' with a split for training; did you mean 'STL10'?"),
        ("torchvision:LSUN:{0}", "no data set 'LSUN'"),
        ("torchvision:STL10:{0}/none", "does not exist"),
        ("torchvision:STL10:{0}", "torchvision cannot read it: Dataset not found or corrupted"),
        ("torchvision:ImageNet:{0}", "torchvision"),
    ],
)
def test_bad_sets(run_distill: Program, teacher_path: Path, tmp_path: Path, text: str, found: str) -> None:
    result = run_distill("eval", "--weights", teacher_path, "--data", text.format(tmp_path))
    assert_one_line(result, found)


def test_a_damaged_image(pets: Path, run_distill: Program, teacher_path: Path) -> None:
    (pets / "oxford-iiit-pet" / "images" / "dog_4.jpg").write_bytes(b"noise")
    result = run_distill("eval", "--weights", teacher_path, "--data", f"torchvision:OxfordIIITPet:{pets}")
    assert_one_line(result, f"torchvision:OxfordIIITPet:{pets}: image 0: torchvision cannot read it")


def test_a_set_that_is_not_for_classification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pairs:
        def __init__(self, root: Path, split: str) -> None: ...

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> str:
            return "text"

    monkeypatch.setattr(torchvision.datasets, "STL10", Pairs)
    with pytest.raises(DistillError, match="item 0 is str, expected a pair of an image and a class number"):
        load_labelled(Path(f"torchvision:STL10:{tmp_path}"), None)
