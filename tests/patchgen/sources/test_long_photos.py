"""Test photos whose enlarged copy is too long for OpenCV's warp, and photos of extreme shapes."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from patchgen.limits import MAX_SIDE
from patchgen.pixels import warp
from patchgen.pixels.geometry import Geometry, build_pyramids, place
from patchgen.pixels.randomness import uniforms
from patchgen.recipe import load_recipe, packaged_recipes
from tests.conftest import Program, assert_one_line

PAPER: dict[str, Any] = load_recipe("asano2023").geometry.model_dump()
STEEPEST = {"rotation": 180, "shear": 80, "aspect": (0.01, 100), "oversize": 1, "crop": 1, "hflip": 0.5, "vflip": 0.5}


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def warped(photo: np.ndarray, geometry: Geometry, size: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return patches of a photo, and the numbers of the pyramid levels that the patches were read from."""
    pyramids = build_pyramids(geometry, size, [photo])
    places = place(geometry, size, pyramids, uniforms(1, 0, 0, n))
    read = warp.Warp(geometry, size, pyramids, places)
    return np.stack([read[i] for i in range(n)]), places.level


@pytest.mark.parametrize("size", [8, 64, 400])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("changes", [{}, STEEPEST, STEEPEST | {"area": (1, 1)}])
def test_a_window_of_a_level_gives_the_patches_of_the_whole_level(
    monkeypatch: pytest.MonkeyPatch, size: int, turned: bool, changes: dict[str, Any]
) -> None:
    photo = noise(3000, 200)
    photo = np.ascontiguousarray(photo.transpose(1, 0, 2)) if turned else photo
    geometry = Geometry(**(PAPER | changes))
    whole, numbers = warped(photo, geometry, size)
    # The window and this photo's enlarged level, 6000×400, have the same ratio as the real window and the longest
    # possible level.
    monkeypatch.setattr(warp, "MAX_SIDE", 4000)
    monkeypatch.setattr(warp, "_WINDOW", 16384 * 400 // 1024)
    assert np.array_equal(warped(photo, geometry, size)[0], whole)
    if size == 400:
        assert (numbers == -4).any()


def test_the_window_of_the_longest_level_is_wide_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is long enough for the worst case: the largest crop of the largest enlarged level."""
    geometry = Geometry(**(PAPER | STEEPEST | {"area": (1, 1), "aspect": (1, 1), "shear": 80}))
    photo = noise(MAX_SIDE // 2 + 1, 511)
    patches, numbers = warped(photo, geometry, 1024, n=30)
    assert (numbers == -4).all()
    monkeypatch.setattr(warp, "_WINDOW", 24_000)
    assert np.array_equal(warped(photo, geometry, 1024, n=30)[0], patches)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(20_000, 400, 32), (400, 20_000, 32), (MAX_SIDE, 8, 8), (8, MAX_SIDE, 8), (MAX_SIDE, 256, 224), (16_384, 8, 8)],
)
def test_any_photo_within_the_limits_is_built(
    tmp_path: Path, run_patchgen: Program, width: int, height: int, size: int
) -> None:
    photo = tmp_path / "p.png"
    assert cv2.imwrite(str(photo), noise(width, height))
    out = tmp_path / "out"
    common = ("--image", photo, "--workers", 1)
    result = run_patchgen("build", *common, "--n", 24, "--size", size, "--out", out)
    assert (result.status, result.err) == (0, "")
    result = run_patchgen("verify", out, *common, "--regenerate", 24)
    assert (result.status, result.err) == (0, "")
    result = run_patchgen("preview", out, "--image", photo, "--out", tmp_path / "sheet.png")
    assert (result.status, result.err) == (0, "")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert max(sheet.shape) < 8000


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_recipe_reads_a_long_photo(tmp_path: Path, run_patchgen: Program, name: str) -> None:
    photo = tmp_path / "p.png"
    assert cv2.imwrite(str(photo), noise(17_000, 64))
    result = run_patchgen(
        "build", "--image", photo, "--n", 64, "--size", 64, "--recipe", name, "--out", tmp_path / "o"
    )
    assert result.status == 0, result.err


@pytest.mark.parametrize(("width", "height"), [(17_000, 40), (40, 17_000), (MAX_SIDE, 1), (1, MAX_SIDE)])
def test_images_of_any_shape_are_packed(tmp_path: Path, run_patchgen: Program, width: int, height: int) -> None:
    (tmp_path / "in").mkdir()
    assert cv2.imwrite(str(tmp_path / "in/a.png"), noise(width, height))
    result = run_patchgen("pack", tmp_path / "in", "--size", 64, "--out", tmp_path / "o", "--workers", 1)
    assert (result.status, result.err) == (0, "")


def test_a_photo_beyond_opencvs_own_limits(tmp_path: Path, run_patchgen: Program) -> None:
    """A PGM of more than 2**20 pixels a side is refused by its header. Nothing is decoded."""
    photo = tmp_path / "p.pgm"
    photo.write_bytes(b"P5\n1200000 1\n255\n" + bytes(1_200_000))
    result = run_patchgen("build", "--image", photo, "--n", 5, "--out", tmp_path / "out")
    assert_one_line(result, str(photo), "CV_IO_MAX_IMAGE_WIDTH", "expected at most 32766 pixels a side")


def test_too_little_memory_is_one_line(
    tmp_path: Path, run_patchgen: Program, photo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("patchgen.pixels.geometry.build_pyramid", fail)
    result = run_patchgen("build", "--image", photo_path, "--n", 5, "--out", tmp_path / "out", "--workers", 1)
    assert_one_line(result, "a photo of 160×120 pixels needs more memory than is free", "scale it down")
    monkeypatch.setattr("patchgen.sources.photo._eight_bits", fail)
    result = run_patchgen("build", "--image", photo_path, "--n", 5, "--out", tmp_path / "out", "--workers", 1)
    assert_one_line(result, str(photo_path), "too little memory")
