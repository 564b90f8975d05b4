"""Test synthetic sources, contact sheets, and the list of recipes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests.format.digest import pixel_digest
from patchgen.sources.photo import read_photo
from patchgen.sources.synthetic import KINDS, make_source
from tests.conftest import Program, assert_one_line, make_photo, write_image


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_synthetic_sources(kind: str, tmp_path: Path, run_patchgen: Program) -> None:
    path = tmp_path / "image.png"
    result = run_patchgen("source", kind, "--size", "320x200", "--seed", 4, "--out", path)
    assert result.status == 0, result
    pixels = read_photo(path).pixels
    assert pixels.shape == (200, 320, 3)
    assert pixel_digest(pixels).hex() in result.out
    assert np.array_equal(pixels, make_source(kind, 320, 200, 4))
    assert not np.array_equal(pixels, make_source(kind, 320, 200, 5))
    assert 20 < pixels.std() < 100


def test_noise_is_uniform() -> None:
    pixels = make_source("noise", 301, 203, 0)
    assert abs(pixels.mean() - 127.5) < 1 and pixels.min() == 0 and pixels.max() == 255
    assert abs(np.corrcoef(pixels[:, :-1].ravel(), pixels[:, 1:].ravel())[0, 1]) < 0.01


def test_dead_leaves_look_alike_at_two_scales() -> None:
    """As in natural images, the contrast between neighboring pixels is nearly the same after the image is halved."""
    pixels = make_source("dead-leaves", 512, 512, 0).astype(float)
    halved = pixels.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    contrast = [np.abs(np.diff(image, axis=1)).mean() / image.std() for image in (pixels, halved)]
    noise = make_source("noise", 512, 512, 0).astype(float)
    assert contrast[1] < 2 * contrast[0]
    assert contrast[0] < 0.5 * np.abs(np.diff(noise, axis=1)).mean() / noise.std()


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (["noise", "--out", "x.jpg"], 1, "the name ends in '.jpg', expected .png"),
        (["noise", "--size", "30", "--out", "x.png"], 2, "is not WIDTHxHEIGHT"),
        (["noise", "--size", "3x4", "--out", "x.png"], 2, "3 is not in the range"),
        (["noise", "--size", "32000x32000", "--out", "x.png"], 2, "give a size of at most"),
        (["cloud", "--out", "x.png"], 2, "'cloud' is not one of"),
        (["noise", "--size", "8x8", "--out", "missing/x.png"], 1, "missing/x.png: the file cannot be written"),
    ],
)
def test_sources_that_cannot_be(arguments: list[str], status: int, part: str, run_patchgen: Program) -> None:
    assert_one_line(run_patchgen("source", *arguments), part, status=status)


def test_a_contact_sheet(patchset_path: Path, photo_path: Path, tmp_path: Path, run_patchgen: Program) -> None:
    assert run_patchgen("preview", patchset_path, "--out", tmp_path / "a.png", "--count", 10).status == 0
    with Image.open(tmp_path / "a.png") as plain:
        size = plain.size
    command = ["preview", patchset_path, "--count", 10, "--image"]
    result = run_patchgen(*command, photo_path, "--out", tmp_path / "b.jpg")
    assert result.status == 0 and f"{size[0]}×" in result.out
    with Image.open(tmp_path / "b.jpg") as traced:
        assert traced.size[0] == size[0] and traced.size[1] > size[1] + 100
    other = write_image(tmp_path / "other.png", make_photo(seed=1))
    assert_one_line(run_patchgen(*command, other, "--out", tmp_path / "c.png"), "the set's source 'photo.png'")
    assert_one_line(
        run_patchgen(*command, photo_path, "--out", tmp_path / "c.gif"),
        "the name ends in '.gif', expected .png, .jpg, .jpeg",
    )


def test_outlines_lie_where_the_patch_was_read(photo_path: Path, patchset_path: Path) -> None:
    from manifests import open_patchset
    from manifests.crop_outlines import read_outlines

    patchset, photo = open_patchset(patchset_path), read_photo(photo_path)
    indices = list(range(0, 200, 5))
    outlines = read_outlines(patchset, indices)
    assert outlines is not None
    errors = []
    for outline, patch in zip(outlines, map(patchset.__getitem__, indices), strict=True):
        x, y = np.mean(outline.corners, axis=0).astype(int)
        errors.append(np.abs(patch[14:18, 14:18].mean(axis=(0, 1)) - photo.pixels[y, x]).mean())
    assert np.median(errors) < 25  # half the patches are color-jittered; at a wrong position the error is 50


def test_recipes_are_listed_and_printed(run_patchgen: Program, tmp_path: Path, photo_path: Path) -> None:
    names = [line.split()[0] for line in run_patchgen("recipes").out.splitlines()]
    assert names == sorted(names) and {"asano2023", "asano2023-black", "crop", "hflip"} <= set(names)
    for name in names:
        printed = run_patchgen("recipes", name).out
        assert (f"name: {name}\n" in printed and f"--recipe {name}" in printed) or name == "asano2023"
        (tmp_path / "mine.yaml").write_text(printed)
        folder = tmp_path / name
        command = ["build", "--image", photo_path, "--n", 5, "--recipe", tmp_path / "mine.yaml", "--out", folder]
        assert run_patchgen(*command).status == 0
    assert_one_line(run_patchgen("recipes", "asano"), "'asano' is not a packaged recipe", status=2)
