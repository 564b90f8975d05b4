"""Test evaluation data: every known form loads the same images, and all other files are refused in one line."""

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data.classes import match_classes
from distill.data.labelled import load_labelled
from distill.errors import DistillError
from tests.distill.conftest import png, write_tar

Labelled = tuple[np.ndarray, np.ndarray]


def check(path: Path, expected: Labelled) -> None:
    data = load_labelled(path, None)
    order = torch.argsort(data.labels, stable=True)
    wanted = np.argsort(expected[1], kind="stable")
    assert data.labels.dtype == torch.int64
    assert torch.equal(data.labels[order], torch.from_numpy(expected[1][wanted]))
    assert torch.equal(data.images[order], torch.from_numpy(expected[0][wanted]))


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def test_cifar10_binary(images: Labelled, tmp_path: Path) -> None:
    records = np.hstack([images[1][:, None].astype(np.uint8), planes(images[0])])
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes())
    check(tmp_path, images)
    check(tmp_path / "test_batch.bin", images)
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes()[:-5])
    with pytest.raises(DistillError, match="expected a multiple of 3073"):
        load_labelled(tmp_path, None)


def test_cifar100_binary_uses_the_fine_label(images: Labelled, tmp_path: Path) -> None:
    coarse = np.full((20, 1), 19, np.uint8)
    records = np.hstack([coarse, images[1][:, None].astype(np.uint8), planes(images[0])])
    (tmp_path / "test.bin").write_bytes(records.tobytes())
    check(tmp_path, images)


@pytest.mark.parametrize(("name", "key"), [("test_batch", b"labels"), ("test", b"fine_labels")])
@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar_python(images: Labelled, tmp_path: Path, name: str, key: bytes, protocol: int) -> None:
    value = {b"data": planes(images[0]), key: images[1].tolist(), b"filenames": [b"x.png"] * 20}
    (tmp_path / name).write_bytes(pickle.dumps(value, protocol=protocol))
    check(tmp_path, images)


class Bomb:
    """An object whose pickle calls ``print`` when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("the pickle ran code",)


def test_a_pickle_that_wants_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pickle that would run code is refused, and the code does not run."""
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Bomb()}))
    with pytest.raises(DistillError, match=r"the type builtins\.print"):
        load_labelled(tmp_path, None)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_webdataset_tars(images: Labelled, tmp_path: Path, suffix: str) -> None:
    mode = "w:gz" if suffix.endswith("gz") else "w"
    for part in range(2):
        members = []
        for i in range(10 * part, 10 * part + 10):
            members += [(f"{i:04d}.png", png(images[0][i])), (f"{i:04d}.cls", f"{images[1][i]}\n".encode())]
        write_tar(tmp_path / f"test-{part}.{suffix}", members, mode)
    check(tmp_path, images)
    assert len(load_labelled(tmp_path / f"test-0.{suffix}", None).labels) == 10


def test_image_folder(images: Labelled, tmp_path: Path) -> None:
    for i, (image, label) in enumerate(zip(*images, strict=True)):
        folder = tmp_path / "abcd"[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}.PNG")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    check(tmp_path, images)


def test_classes_have_the_names_that_files_give_them(images: Labelled, tmp_path: Path) -> None:
    for name in ("cat", "ant", "bee", "dog"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "0.png").write_bytes(png(images[0][0]))
    assert load_labelled(tmp_path / "folder", None).names == ("ant", "bee", "cat", "dog")
    pixels, labels = images
    binary, python = tmp_path / "binary", tmp_path / "python"
    binary.mkdir()
    (binary / "test_batch.bin").write_bytes(np.column_stack([labels.astype(np.uint8), planes(pixels)]).tobytes())
    assert load_labelled(binary, None).names == ()
    (binary / "batches.meta.txt").write_text("ant\nbee\ncat\ndog\n\n")
    assert load_labelled(binary, None).names == ("ant", "bee", "cat", "dog")
    python.mkdir()
    (python / "test").write_bytes(pickle.dumps({b"data": planes(pixels), b"fine_labels": labels.tolist()}))
    (python / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"ant", b"bee"]}))
    assert load_labelled(python, None).names == ("ant", "bee")
    (python / "meta").write_bytes(b"\x80 torn")
    assert load_labelled(python, None).names == ()


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    """Images of several sizes are refused, unless a size is set."""
    for i, (width, height) in enumerate([(80, 60), (60, 80), (32, 32)]):
        (tmp_path / str(i)).mkdir()
        Image.new("RGB", (width, height), (255, 0, 0)).save(tmp_path / str(i) / "x.png")
    with pytest.raises(DistillError, match="images of 3 sizes"):
        load_labelled(tmp_path, None)
    data = load_labelled(tmp_path, 32)
    assert data.images.shape == (3, 32, 32, 3) and (data.images[..., 0] == 255).all()


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ([("1.png", b"x")], "the sample has .png, expected an image and a .cls"),
        ([("1.cls", b"1")], "the sample has .cls, expected an image"),
        ([("1.png", b"x"), ("1.cls", b"cat")], "the class is 'cat'"),
        ([("1.png", b"x"), ("1.cls", b"1")], "not a whole image"),
        ([], "contains no image with a label"),
    ],
)
def test_tars_that_are_no_test_set(tmp_path: Path, members: list[tuple[str, bytes]], part: str) -> None:
    path = write_tar(tmp_path / "t.tar", members)
    with pytest.raises(DistillError, match=part.replace(".cls", r"\.cls")) as caught:
        load_labelled(path, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_without_its_end(images: Labelled, tmp_path: Path, suffix: str) -> None:
    """A tar without an end marker is refused, although the members before the cut can be read.

    A damaged header between two samples has the same effect as a cut.
    """
    members = []
    for i, (image, label) in enumerate(zip(*images, strict=True)):
        members += [(f"{i:04d}.cls", str(label).encode()), (f"{i:04d}.png", png(image))]
    whole = write_tar(tmp_path / "whole.tar", members).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        middle = tar.getmember("0010.cls").offset
    damaged = bytearray(whole)
    damaged[middle + 10] ^= 1
    for data in (whole[:middle], bytes(damaged)):
        path = tmp_path / f"test{suffix}"
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
        with pytest.raises(DistillError, match=r"the tar cannot be read.*no end marker"):
            load_labelled(path, None)


def test_a_class_folder_that_cannot_be_read(
    images: Labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(images[0][0]))
    original = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DistillError, match=r"cat: cannot be read: Permission denied"):
        load_labelled(tmp_path, None)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="the evaluation data does not exist"):
        load_labelled(tmp_path / ("x" * 300), None)


def test_no_known_form(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="the evaluation data does not exist"):
        load_labelled(tmp_path / "none", None)
    with pytest.raises(DistillError, match="in a known form"):
        load_labelled(tmp_path, None)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DistillError, match="in a known form"):
        load_labelled(tmp_path / "data.csv", None)
    (tmp_path / "x.tar").write_bytes(b"garbage" * 1000)
    with pytest.raises(DistillError, match="the tar cannot be read"):
        load_labelled(tmp_path / "x.tar", None)


def test_labels_must_be_the_teachers_classes(images: Labelled, tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(
        np.hstack([images[1][:, None].astype(np.uint8), planes(images[0])]).tobytes()
    )
    data = load_labelled(tmp_path, None)
    match_classes(data, 4, (), tmp_path)
    with pytest.raises(DistillError, match="the labels are from 0 to 3, expected 0 to 2"):
        match_classes(data, 3, (), tmp_path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_labels_and_pixels_as_arrays_of_every_protocol(images: Labelled, tmp_path: Path, protocol: int) -> None:
    value = {b"data": planes(images[0]), b"labels": images[1]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(value, protocol=protocol))
    check(tmp_path, images)


class Pointers:
    """An object whose pickle asks for an array of objects at an arbitrary memory address."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return np.ndarray, ((1,), np.dtype("O"), b"A" * 8)


def test_a_pickle_that_points_into_memory(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Pointers(), b"labels": [0]}))
    with pytest.raises(DistillError, match="not a CIFAR file"):
        load_labelled(tmp_path, None)
