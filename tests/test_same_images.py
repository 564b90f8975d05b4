"""Test that ``patchgen pack`` and ``distill eval`` read the same images from the same folder.

The tests compare formats, bit depths, orientations, splits and hidden files.
"""

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distill.data.classes import match_classes
from distill.data.labelled import load_labelled
from distill.errors import DistillError
from manifests import open_patchset
from manifests.format.digest import pixel_digest
from manifests.untrusted.decode import image_formats, image_suffixes
from tests.conftest import Program, assert_one_line
from tests.distill.conftest import write_tar
from tests.helpers.running import log_lines

Pixels = npt.NDArray[np.uint8]
SIDE = 16


def noise(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def encoded(pixels: npt.NDArray[Any], form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes | int) -> None:
    """Write an image file. A number is the seed of a PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(noise(data)) if isinstance(data, int) else data)


@pytest.fixture
def pack(run_patchgen: Program, tmp_path: Path) -> Callable[[Path], list[bytes]]:
    """Return a function that packs a folder and returns the sorted digests of the patches' pixels."""

    def packed(data: Path) -> list[bytes]:
        shutil.rmtree(tmp_path / "packed", ignore_errors=True)
        result = run_patchgen("pack", data, "--out", tmp_path / "packed")
        assert result.status == 0, result.err
        patchset = open_patchset(tmp_path / "packed")
        return sorted(pixel_digest(patch) for patch in map(patchset.__getitem__, range(len(patchset))))

    return packed


def digests(*seeds: int) -> list[bytes]:
    return sorted(pixel_digest(noise(seed)) for seed in seeds)


def evaluated(data: Path, split: Any = "test") -> list[bytes]:
    return sorted(load_labelled(data, None, split).digests)


LOSSLESS = {
    "PNG": ".png", "PPM": ".ppm", "BMP": ".bmp", "DIB": ".dib", "TIFF": ".tif", "TGA": ".tga", "PCX": ".pcx",
    "SGI": ".sgi", "QOI": ".qoi",
}  # fmt: skip
LOSSY = {
    "JPEG": ".jpeg", "WEBP": ".webp", "GIF": ".gif", "JPEG2000": ".jp2", "AVIF": ".avif", "ICO": ".ico",
    "MPO": ".mpo", "DDS": ".dds",
}  # fmt: skip


@pytest.mark.parametrize(("form", "suffix"), [*LOSSLESS.items(), *LOSSY.items()])
def test_formats(form: str, suffix: str, tmp_path: Path, pack: Callable[[Path], list[bytes]]) -> None:
    if form not in (*image_formats(), "MPO") or form not in Image.SAVE:
        pytest.skip(f"this Pillow has no {form}")
    for number, name in enumerate((f"a/0{suffix}", f"b/1{suffix.upper()}")):
        write(tmp_path / "data" / name, encoded(noise(number), form))
    got = evaluated(tmp_path / "data")
    assert got == pack(tmp_path / "data")
    if form in LOSSLESS:
        assert got == digests(0, 1)
    assert len(got) == 2 and suffix in image_suffixes()


GRAY = (np.arange(SIDE * SIDE, dtype=np.uint16) * 257).reshape(SIDE, SIDE)
SCALED = ((GRAY.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def by_opencv(suffix: str, pixels: npt.NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1])


PALETTE = Image.fromarray(noise(3)).quantize(16)
DEPTHS: dict[str, tuple[str, Callable[[], bytes], Callable[[], Pixels]]] = {
    "16-bit gray PNG": (".png", lambda: encoded(GRAY), lambda: np.dstack([SCALED] * 3)),
    "16-bit gray TIFF": (".tif", lambda: encoded(GRAY, "TIFF"), lambda: np.dstack([SCALED] * 3)),
    "16-bit gray PGM": (".pgm", lambda: by_opencv(".pgm", GRAY), lambda: np.dstack([SCALED] * 3)),
    "16-bit color PNG": (
        ".png",
        lambda: by_opencv(".png", np.dstack([GRAY, GRAY.T, GRAY[::-1]])),
        lambda: np.dstack([GRAY[::-1] >> 8, GRAY.T >> 8, GRAY >> 8]).astype(np.uint8),
    ),
    "8-bit gray": (".png", lambda: encoded(SCALED), lambda: np.dstack([SCALED] * 3)),
    "1 bit": (".pbm", lambda: encoded(SCALED > 99, "PPM"), lambda: np.dstack([(SCALED > 99) * np.uint8(255)] * 3)),
    "alpha": (
        ".png",
        lambda: encoded(np.dstack([noise(1), SCALED])),
        lambda: noise(1),
    ),
    "gray and alpha": (
        ".png",
        lambda: encoded(np.dstack([SCALED, SCALED.T])),
        lambda: np.dstack([SCALED] * 3),
    ),
    "palette": (".gif", lambda: save(PALETTE, "GIF"), lambda: np.asarray(PALETTE.convert("RGB"))),
    "CMYK": (
        ".jpg",
        lambda: save(Image.fromarray(noise(2)).convert("CMYK"), "JPEG", quality=95),
        lambda: np.asarray(
            Image.open(io.BytesIO(save(Image.fromarray(noise(2)).convert("CMYK"), "JPEG", quality=95))).convert("RGB")
        ),
    ),
}


def save(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", DEPTHS)
def test_bit_depths_and_colours(name: str, tmp_path: Path, pack: Callable[[Path], list[bytes]]) -> None:
    suffix, data, expected = DEPTHS[name]
    write(tmp_path / "data" / "a" / f"0{suffix}", data())
    write(tmp_path / "data" / "b" / f"0{suffix}", data())
    loaded = load_labelled(tmp_path / "data", None)
    assert np.array_equal(loaded.images[0].numpy(), expected())
    assert sorted(loaded.digests) == pack(tmp_path / "data")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_orientations(form: str, turn: int, tmp_path: Path, pack: Callable[[Path], list[bytes]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    ramp = np.dstack([SCALED // 2, SCALED.T // 2, np.full_like(SCALED, 90)])
    data = encoded(ramp, form, exif=exif, **({"quality": 100} if form != "TIFF" else {}))
    turned = {
        1: ramp,
        2: ramp[:, ::-1],
        3: ramp[::-1, ::-1],
        4: ramp[::-1],
        5: ramp.transpose(1, 0, 2),
        6: np.rot90(ramp, -1),
        7: ramp[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(ramp),
    }
    write(tmp_path / "data" / "a" / f"0.{form}", data)
    write(tmp_path / "data" / "b" / f"0.{form}", data)
    for path in (tmp_path / "data").rglob("0.*"):
        path.rename(path.with_suffix({"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp"}[form]))
    loaded = load_labelled(tmp_path / "data", None)
    assert np.abs(loaded.images[0].numpy().astype(int) - turned[turn]).mean() < 4
    assert sorted(loaded.digests) == pack(tmp_path / "data")


@pytest.mark.parametrize(
    "name",
    [".b.png", "._b.png", ".ipynb_checkpoints/b.png", "__MACOSX/b.png", "__MACOSX/._b.png", "@eaDir/b.png"],
)
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_hidden_files_are_left_out_and_named(
    name: str, form: str, tmp_path: Path, run_distill: Program, pack: Callable[[Path], list[bytes]]
) -> None:
    images = {"a/0.png": encoded(noise(0)), "b/0.png": encoded(noise(1)), f"a/{name}": encoded(noise(2))}
    if form == "folder":
        for path, data in images.items():
            write(tmp_path / "data" / path, data)
        data_path = tmp_path / "data"
    else:
        members = [*images.items(), ("a/0.cls", b"0"), ("b/0.cls", b"1")]
        data_path = write_tar(tmp_path / "data.tar", members)
    with log_lines() as notes:
        loaded = load_labelled(data_path, None, "test")
    assert sorted(loaded.digests) == pack(data_path) == digests(0, 1)
    assert len(notes) == 1 and "skipped 1 (hidden" in notes[0] and Path(name).parts[0] in notes[0]


def test_what_is_not_read_is_counted(tmp_path: Path, run_patchgen: Program) -> None:
    for name in ("a/0.png", "b/0.png", "a/1.heic", "a/2.heic", "b/notes.txt", "a/.DS_Store", "b/Thumbs.db"):
        write(tmp_path / "data" / name, 0)
    with log_lines() as notes:
        assert len(load_labelled(tmp_path / "data", None, "test").labels) == 2
    data = tmp_path / "data"
    wanted = f"{data}: skipped 3 (files of no known image format: 2 .heic, 1 .txt), such as {data / 'a' / '1.heic'}"
    assert notes == [wanted]
    assert wanted in run_patchgen("pack", tmp_path / "data", "--out", tmp_path / "out").err


SPLITS = [
    ("train", "test"),
    ("training", "testing"),
    ("Train", "Test"),
    ("TRAINING", "VALIDATION"),
    ("train", "val"),
    ("train2017", "val2017"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ("train_images", "test_images"),
    ("training_v2", "testing_v2"),
    ("train_blurred", "val_blurred"),
    ("train (1)", "test (1)"),
    ("trainA", "testA"),
    ("train_and_val", "test"),
    ("train", "valid"),
    ("train", "dev"),
    ("trainset", "testset"),
    ("train", "eval"),
    ("train_32x32", "test_32x32"),
]


@pytest.mark.parametrize(("train", "test"), SPLITS)
@pytest.mark.parametrize("third", [None, "extra", "unlabeled", "devkit"])
def test_splits(
    train: str, test: str, third: str | None, tmp_path: Path, pack: Callable[[Path], list[bytes]]
) -> None:
    for number, split in enumerate((train, test)):
        for label in range(2):
            write(tmp_path / "data" / split / "cd"[label] / "0.png", 2 * number + label)
    if third:
        write(tmp_path / "data" / third / "0.png", 9)
    assert evaluated(tmp_path / "data", "train") == pack(tmp_path / "data") == digests(0, 1)
    assert evaluated(tmp_path / "data") == digests(2, 3)


@pytest.mark.parametrize(
    ("train", "test"), [("train-000.tar", "test-000.tar"), ("c10-training-0.tgz", "c10-val-0.tgz")]
)
@pytest.mark.parametrize("inside", [False, True])
def test_splits_of_tars(
    train: str, test: str, inside: bool, tmp_path: Path, pack: Callable[[Path], list[bytes]]
) -> None:
    for number, name in enumerate((train, test, "unlabeled-000.tar")):
        folder = tmp_path / "data" / ("train", "val", "unlabeled")[number] if inside else tmp_path / "data"
        folder.mkdir(parents=True, exist_ok=True)
        members = [("0.png", encoded(noise(number))), ("0.cls", b"0")]
        write_tar(folder / name, members, "w:gz" if name.endswith("gz") else "w")
    assert evaluated(tmp_path / "data", "train") == pack(tmp_path / "data") == digests(0)
    assert evaluated(tmp_path / "data") == digests(1)


def test_of_test_and_validation_images_the_test_images_are_read(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        for label in range(2):
            write(tmp_path / "data" / split / "cd"[label] / "0.png", 2 * number + label)
            write_tar(tmp_path / f"{split}.tar", [("0.png", encoded(noise(number))), ("0.cls", b"0")])
    assert evaluated(tmp_path / "data") == digests(4, 5)
    shutil.rmtree(tmp_path / "data" / "test")
    write(tmp_path / "data" / "test" / "0.png", 9)  # no labels, like ImageNet's test images
    assert evaluated(tmp_path / "data") == digests(2, 3)
    shutil.rmtree(tmp_path / "data")
    assert evaluated(tmp_path) == digests(2)


@pytest.mark.parametrize("name", ["extra", "unlabeled"])
def test_extra_images_alone_are_no_split(name: str, tmp_path: Path, pack: Callable[[Path], list[bytes]]) -> None:
    for number, folder in enumerate(("cat", "dog", f"{name}/a", f"{name}/b")):
        write(tmp_path / "data" / folder / "0.png", number)
    assert evaluated(tmp_path / "data", "train") == pack(tmp_path / "data") == digests(0, 1, 2, 3)


def test_a_class_may_be_called_train(tmp_path: Path, pack: Callable[[Path], list[bytes]]) -> None:
    for number, name in enumerate(("bus", "car", "train")):
        write(tmp_path / "data" / name / "0.png", number)
    loaded = load_labelled(tmp_path / "data", None)
    assert loaded.names == ("bus", "car", "train")
    assert evaluated(tmp_path / "data") == pack(tmp_path / "data") == digests(0, 1, 2)


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (
            ["cifar/train/a/0.png", "cifar/test/a/0.png"],
            "cifar: the folder contains the splits test, train; use this folder",
        ),
        (["c10/Train/a/0.png", "c100/Train/a/0.png"], "c10: the folder contains the splits Train; use this folder"),
        (["cat/train/0.png", "cat/test/0.png", "dog/train/0.png"], "cat: the folder contains the splits test, train"),
        (["x/train/0.png", "x/val/0.png", "y/0.png"], "x: the folder contains the splits train, val"),
    ],
)
def test_splits_one_level_too_deep_are_refused(
    names: list[str], part: str, tmp_path: Path, run_patchgen: Program
) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "data" / name, number)
    with pytest.raises(DistillError, match=part):
        load_labelled(tmp_path / "data", None)
    assert_one_line(run_patchgen("pack", tmp_path / "data", "--out", tmp_path / "out"), part)


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["data2/0.png"], "contains one subfolder (data2)"),
        (["0.png", "1.png"], "no subfolders, expected a subfolder for each class"),
        (["train/0.png", "test/1.png"], "no subfolders, expected a subfolder for each class"),
        (["a/0.png", "b/0.png", "docs/readme.md"], "docs: the folder contains files but no image"),
        (["train/a/0.png", "train/b/0.png"], "expected evaluation data"),
        (["gallery/a/0.png", "gallery/b/0.png", "probe/a/0.png", "probe/b/0.png"], "contain the folders a, b"),
        (
            ["labeled/a/0.png", "labeled/b/0.png", "unlabeled/a/0.png", "unlabeled/b/0.png"],
            "contain the folders a, b",
        ),
    ],
)
def test_folders_without_labels_are_refused(names: list[str], part: str, tmp_path: Path) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "data" / name, number)
    with pytest.raises(DistillError) as caught:
        load_labelled(tmp_path / "data", None)
    assert part in str(caught.value)


def test_evaluation_images_alone_are_not_packed(tmp_path: Path, run_patchgen: Program) -> None:
    write(tmp_path / "data" / "test" / "a" / "0.png", 0)
    write(tmp_path / "data" / "val" / "a" / "0.png", 1)
    result = run_patchgen("pack", tmp_path / "data", "--out", tmp_path / "out")
    assert_one_line(result, "contains test, val, expected training data")


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee", "cat")):
        write(tmp_path / "all" / name / "0.png", number)
    (tmp_path / "some").mkdir()
    for name in ("ant", "cat"):
        (tmp_path / "some" / name).symlink_to(tmp_path / "all" / name)
    assert evaluated(tmp_path / "some") == digests(0, 2)


def write_cifar(folder: Path, python: bool = True) -> None:
    """Write CIFAR-10 in Python's form or as binary records. Image k of file n is ``noise32(10 * n + k)``."""
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows = np.stack([noise32(10 * number + k).transpose(2, 0, 1).reshape(-1) for k in range(2)])
        if python:
            (folder / name).write_bytes(pickle.dumps({b"data": rows, b"labels": [0, 1]}))
        else:
            (folder / f"{name}.bin").write_bytes(np.column_stack([np.uint8([0, 1]), rows]).tobytes())


def noise32(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize(("name", "python"), [("cifar-10-batches-py", True), ("cifar-10-batches-bin", False)])
def test_the_folder_above_cifars_files(
    name: str, python: bool, archive: bool, tmp_path: Path, pack: Callable[[Path], list[bytes]]
) -> None:
    write_cifar(tmp_path / "root" / name, python)
    if archive:  # torchvision leaves the archive beside the folder
        (tmp_path / "root" / "cifar-10-python.tar.gz").write_bytes(b"not looked at")
    assert evaluated(tmp_path / "root") == sorted(pixel_digest(noise32(50 + k)) for k in range(2))
    training = sorted(pixel_digest(noise32(10 * n + k)) for n in range(5) for k in range(2))
    assert evaluated(tmp_path / "root", "train") == training == pack(tmp_path / "root")


def test_what_is_said_where_cifar_cannot_be_read(tmp_path: Path, run_patchgen: Program) -> None:
    archive = tmp_path / "root" / "cifar-100-python.tar.gz"
    write(archive, b"x")
    for data in (archive, archive.parent):
        with pytest.raises(DistillError, match=r"unpack it with tar -xf"):
            load_labelled(data, None)
        assert_one_line(run_patchgen("pack", data, "--out", tmp_path / "out"), "unpack it with tar -xf")
    write_cifar(tmp_path / "root" / "cifar-10-batches-py")
    (tmp_path / "root" / "cifar-100-python").mkdir()
    with pytest.raises(DistillError, match="contains cifar-10-batches-py and cifar-100-python; use one of these"):
        load_labelled(tmp_path / "root", None)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ([str(k) for k in range(12)], range(12)),
        ([f"{k:02d}" for k in range(12)], range(12)),
        ([str(k) for k in range(1, 13)], range(12)),
        (["b", "A", "a"], (2, 0, 1)),
        (["dog", "cat", "ant"], (2, 1, 0)),
        (["n01440764", "n01443537"], (0, 1)),
    ],
)
def test_class_orders(names: list[str], labels: Any, tmp_path: Path, pack: Callable[[Path], list[bytes]]) -> None:
    for number, name in enumerate(names):
        write(tmp_path / "data" / name / "0.png", number)
    found = load_labelled(tmp_path / "data", None)
    data = match_classes(found, len(names), (), tmp_path / "data")
    assert dict(zip(data.digests, data.labels.tolist(), strict=True)) == {
        pixel_digest(noise(number)): label for number, label in enumerate(labels)
    }
    assert sorted(data.digests) == pack(tmp_path / "data")


def test_an_empty_folder_keeps_its_place_among_the_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "cat")):
        write(tmp_path / "data" / name / "0.png", number)
    (tmp_path / "data" / "bee").mkdir()
    (tmp_path / "data" / "bee" / ".gitkeep").write_bytes(b"")
    data = load_labelled(tmp_path / "data", None)
    assert data.names == ("ant", "bee", "cat") and data.labels.tolist() == [0, 2]


def test_cifars_files_further_down_are_named(tmp_path: Path, run_patchgen: Program) -> None:
    write_cifar(tmp_path / "root" / "cifar10" / "cifar-10-batches-py")
    with pytest.raises(DistillError, match=r"use .*cifar10/cifar-10-batches-py"):
        load_labelled(tmp_path / "root", None)
    assert_one_line(run_patchgen("pack", tmp_path / "root", "--out", tmp_path / "out"), "cifar-10-batches-py")
