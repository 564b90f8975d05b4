"""Test all kinds of files that a user may pass as a photo, through the program."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from patchgen.errors import PatchgenError
from patchgen.sources.photo import read_photo
from tests.conftest import Program, assert_one_line, make_photo, write_image

PHOTO = make_photo(96, 64)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_pixels_are_the_files(tmp_path: Path) -> None:
    photo = read_photo(write_image(tmp_path / "p.png", PHOTO))
    assert np.array_equal(photo.pixels, PHOTO)
    assert (photo.width, photo.height) == (96, 64)


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "p.tiff", "p.bmp", "p.ppm"])
def test_formats_and_their_truncations(tmp_path: Path, name: str) -> None:
    path = write_image(tmp_path / name, PHOTO)
    assert read_photo(path).pixels.shape == PHOTO.shape
    data = path.read_bytes()
    for keep in (len(data) // 3, len(data) * 9 // 10, len(data) - 2):
        path.write_bytes(data[:keep])
        with pytest.raises(PatchgenError) as caught:
            read_photo(path)
        assert "whole image" in str(caught.value) or "not readable" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff", "deep.ppm"])
def test_sixteen_bits_are_scaled_exactly(tmp_path: Path, name: str) -> None:
    deep = np.arange(64 * 96 * 3, dtype=np.uint16).reshape(64, 96, 3) * 3
    cv2.imwrite(str(tmp_path / name), cv2.cvtColor(deep, cv2.COLOR_RGB2BGR))
    expected = np.floor(deep.astype(np.float64) * 255 / 65535 + 0.5)
    assert np.array_equal(read_photo(tmp_path / name).pixels, expected)


def test_gray_alpha_palette_and_cmyk(tmp_path: Path) -> None:
    image = Image.fromarray(PHOTO)
    gray = read_photo(save(tmp_path / "gray.png", image.convert("L"))).pixels
    assert np.array_equal(gray, np.asarray(image.convert("L").convert("RGB")))
    alpha = np.dstack([PHOTO, np.full((64, 96), 7, np.uint8)])
    assert np.array_equal(read_photo(save(tmp_path / "alpha.png", Image.fromarray(alpha))).pixels, PHOTO)
    palette = image.quantize(64)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(read_photo(save(tmp_path / "palette.png", palette)).pixels, expected)
    cmyk = read_photo(save(tmp_path / "cmyk.jpg", image.convert("CMYK"), quality=95)).pixels
    assert np.abs(cmyk.astype(int) - PHOTO).mean() < 4


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_the_camera_was_turned(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    path = save(tmp_path / "turned.jpg", Image.fromarray(PHOTO), exif=exif, quality=100, subsampling=0)
    assert np.abs(read_photo(path).pixels.astype(int) - np.rot90(PHOTO, turns)).mean() < 2


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "the file is empty"),
        (b"hello, world" * 50, "not a whole image"),
        (b"\xff\xd8\xff", "not a whole image"),
    ],
)
def test_no_image_at_all(tmp_path: Path, run_patchgen: Program, data: bytes, part: str) -> None:
    (tmp_path / "x.jpg").write_bytes(data)
    result = run_patchgen("build", "--image", tmp_path / "x.jpg", "--n", 5, "--out", tmp_path / "out")
    assert_one_line(result, part, str(tmp_path / "x.jpg"))
    assert not (tmp_path / "out").exists()


def test_missing_folder_and_float_images(tmp_path: Path) -> None:
    with pytest.raises(PatchgenError, match="No such file"):
        read_photo(tmp_path / "none.png")
    with pytest.raises(PatchgenError, match="is a folder"):
        read_photo(tmp_path)
    cv2.imwrite(str(tmp_path / "f.tiff"), np.zeros((40, 40, 3), np.float32))
    with pytest.raises(PatchgenError, match="float32"):
        read_photo(tmp_path / "f.tiff")


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (31, 500)])
def test_a_photo_smaller_than_a_patch(tmp_path: Path, run_patchgen: Program, shape: tuple[int, int]) -> None:
    path = write_image(tmp_path / "small.png", np.zeros((*shape, 3), np.uint8))
    result = run_patchgen("build", "--image", path, "--n", 5, "--out", tmp_path / "out")
    assert_one_line(result, f"{shape[1]}×{shape[0]} pixels, but a patch has 32×32", "--size")
    assert not (tmp_path / "out").exists()


def test_a_photo_too_wide_for_the_warp(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    save(path, Image.fromarray(np.zeros((2, 40_000, 3), np.uint8)))
    with pytest.raises(PatchgenError, match="40000×2 pixels, expected at most 32766"):
        read_photo(path)
