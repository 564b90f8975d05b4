"""Test which class a label means, and which messages are printed.

Labels are matched by class names if both the data and the network have names, and by number otherwise.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.classes import complete_names, match_classes
from distill.data.labelled import LabelledImages, load_labelled
from distill.errors import DistillError
from distill.models import build_model
from distill.weights.files import load_weights, save_weights
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import MEAN, STD, png, write_tar
from tests.helpers.running import log_lines


def folders(root: Path, *names: str) -> LabelledImages:
    """Write class folders with one image each, and load the images. Each folder has a brighter image than before."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(png(np.full((8, 8, 3), 10 * number, np.uint8)))
    return load_labelled(root, None)


def matched(data: LabelledImages, num_classes: int, *names: str) -> tuple[dict[int, int], list[str]]:
    """Return the class of each image, by brightness, and the logged lines."""
    with log_lines() as said:
        found = match_classes(data, num_classes, names, Path("data"))
    values = (found.images[:, 0, 0, 0] // 10).tolist()
    return dict(zip(values, found.labels.tolist(), strict=True)), said


@pytest.mark.parametrize(
    ("names", "num_classes", "expected", "part"),
    [
        ([str(k) for k in range(12)], 12, range(12), None),
        ([f"{k:03d}" for k in range(12)], 12, range(12), None),
        (["0", "1", "2", "4"], 5, (0, 1, 2, 4), "contains images of 4 of the network's 5 classes"),
        (["3", "7"], 10, (3, 7), "folder 7 is class 7"),
        ([str(k) for k in range(1, 13)], 12, range(12), "counted from 1; folder 1 is class 0"),
        (["1", "2", "4", "5"], 5, (0, 1, 3, 4), "counted from 1"),
        (["10", "20", "100"], 3, (0, 1, 2), "the classes from 0 on; folder 10 is class 0"),
    ],
)
def test_folders_that_are_numbers(
    names: list[str], num_classes: int, expected: range, part: str | None, tmp_path: Path
) -> None:
    """If folder names are numbers, the numbers are the classes. Unusual numbers are logged."""
    labels, said = matched(folders(tmp_path, *names), num_classes)
    assert labels == dict(enumerate(expected))
    assert part is None or any(part in line for line in said)
    assert part is not None or said == []


def test_numbers_that_are_no_class(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="class folders are numbers from 10 to 20, expected 0 to 4"):
        matched(folders(tmp_path, "10", "20"), 5)


@pytest.mark.parametrize("missing", ["ant", "bee", "cat"])
def test_a_missing_class_folder_shifts_no_label(missing: str, tmp_path: Path) -> None:
    whole = ("ant", "bee", "cat", "dog")
    names = [name for name in whole if name != missing]
    labels, said = matched(folders(tmp_path, *names), 4, *whole)
    assert labels == {k: whole.index(name) for k, name in enumerate(names)}
    assert any("contains images of 3 of the network's 4 classes" in line for line in said)


@pytest.mark.parametrize("names", [(), ("0", "1", "2", "3")])
def test_a_missing_class_folder_is_refused_if_the_network_has_no_names(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    """Neither names nor numbers say which class is missing, so sorted folders would get wrong labels."""
    with pytest.raises(DistillError, match="contains 3 class folders, but the network has 4 classes"):
        matched(folders(tmp_path, "bee", "cat", "dog"), 4, *names)


def test_names_decide_and_not_the_order(tmp_path: Path) -> None:
    labels, said = matched(folders(tmp_path, "Polar-Bear", "ant", "bee"), 3, "polar bear", "bee", "ant")
    assert labels == {0: 0, 1: 2, 2: 1}
    assert said == ["data: the classes have another order than in the network; they are matched by name"]


def test_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=r"no classes named 'cow'; 1 of 2 class names .* \(ant, bee"):
        matched(folders(tmp_path, "ant", "cow"), 3, "ant", "bee", "cat")
    with pytest.raises(DistillError, match="the labels are from 0 to 1, expected 0 to 0"):
        matched(folders(tmp_path / "more", "ant", "cow"), 1)


def test_numbers_are_compared_with_no_names(tmp_path: Path) -> None:
    """Numeric folder names are not compared with the class names of the network."""
    assert matched(folders(tmp_path, "0", "1", "2"), 3, "ant", "bee", "cat") == ({0: 0, 1: 1, 2: 2}, [])


def test_tars_have_the_names_beside_them(tmp_path: Path) -> None:
    """Class names of a tar are read from ``classes.txt`` in the same folder."""
    members = [("0.png", png(np.zeros((8, 8, 3), np.uint8))), ("0.cls", b"1")]
    data = load_labelled(write_tar(tmp_path / "test-0.tar", members), None)
    assert data.names == ()
    (tmp_path / "classes.txt").write_text("cat\nant\n\n")
    data = load_labelled(tmp_path / "test-0.tar", None)
    assert data.names == ("cat", "ant")
    assert matched(data, 3, "ant", "bee", "cat")[0] == {0: 0}


@pytest.mark.parametrize(
    ("names", "num_classes", "expected"),
    [
        (("ant", "bee"), 2, ("ant", "bee")),
        (("0", "1"), 2, ()),
        (("3", "7"), 2, ("3", "7")),
        (("0", "1", "10"), 3, ("0", "1", "10")),
        (("0", "1", "2", "4"), 5, ()),
    ],
)
def test_names_that_a_weight_file_keeps(
    names: tuple[str, ...], num_classes: int, expected: tuple[str, ...], tmp_path: Path
) -> None:
    """A weight file records class names only if the data has a folder for every class.

    Names that are equal to the class numbers are not recorded.
    """
    data = folders(tmp_path, *names)
    assert complete_names(match_classes(data, num_classes, (), tmp_path)) == expected


@pytest.fixture
def named_weights(tmp_path: Path) -> Callable[..., Path]:
    def save(**about: object) -> Path:
        torch.manual_seed(3)
        path = tmp_path / "named.safetensors"
        save_weights(path, build_model("resnet8", 4), arch="resnet8", num_classes=4, mean=MEAN, std=STD, **about)
        return path

    return save


def test_weight_files_keep_names(named_weights: Callable[..., Path], tmp_path: Path, run_distill: Program) -> None:
    path = named_weights(classes=("ant", "b\u00e9e", "\\udcff", "dog"), data_sha256="ab")
    weights = load_weights(path)
    assert weights.classes == ("ant", "b\u00e9e", "\\udcff", "dog") and weights.data_sha256 == "ab"
    assert run_distill("convert", path, "--out", tmp_path / "copy.safetensors").status == 0
    assert (tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()
    named_weights(classes=("ant", "bee"))
    assert_one_line(
        run_distill("eval", "--weights", path, "--data", tmp_path), "classes has 2 names, but num_classes is 4"
    )


def test_per_class_of_data_with_fewer_classes(
    named_weights: Callable[..., Path], tmp_path: Path, run_distill: Program
) -> None:
    folders(tmp_path / "data", "1", "3")
    command = ["eval", "--weights", named_weights(), "--data", tmp_path / "data", "--device", "cpu", "--per-class"]
    result = run_distill(*command)
    assert result.status == 0, result.err
    assert [line.split(":")[0] for line in result.out.splitlines()[1:]] == ["class 0", "1", "class 2", "3"]
    assert "on 2 images of 2 classes in " in result.out
    assert "contains images of 2 of the network's 4 classes" in result.err
    named_weights(classes=("ant", "bee", "cat", "dog"))
    for name, new in (("1", "bee"), ("3", "dog")):
        (tmp_path / "data" / name).rename(tmp_path / "data" / new)
    result = run_distill(*command)
    assert [line.split(":")[0] for line in result.out.splitlines()[1:]] == ["ant", "bee", "cat", "dog"]
    assert result.out.splitlines()[1].endswith("no images") and "%" in result.out.splitlines()[2]
