"""Test places and the warp: ranges, exactness, and agreement with the chain of operations that the warp replaces."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st

from patchgen.errors import PatchgenError
from patchgen.pixels.geometry import Geometry, Placements, place
from patchgen.pixels.pyramid import Pyramid, build_pyramid
from patchgen.pixels.randomness import uniforms
from patchgen.pixels.warp import Warp
from patchgen.recipe import load_recipe
from patchgen.sources.synthetic import make_source
from tests.conftest import make_photo

PAPER: dict[str, Any] = load_recipe("asano2023-black").geometry.model_dump()


def pyramid(width: int = 320, height: int = 240) -> Pyramid:
    return build_pyramid(make_photo(width, height), enlarge=True)


def places(geometry: Geometry, source: Pyramid, n: int = 2000, size: int = 32, seed: int = 0) -> Placements:
    return place(geometry, size, [source], uniforms(seed, 0, 0, n))


def test_ranges_of_the_paper() -> None:
    p = places(Geometry(**PAPER), pyramid(), n=20_000)
    assert p.x.min() >= 0 and (p.x + p.width).max() <= 320
    assert p.y.min() >= 0 and (p.y + p.height).max() <= 240
    area, aspect = p.width * p.height / 120**2, p.width / p.height
    assert 0.0019 < area.min() < 0.01 and 0.95 < area.max() <= 1
    assert 0.749 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.334
    for angles in (p.rotation, p.shear):
        assert -30 <= angles.min() < -29.9 and 29.9 < angles.max() <= 30
    assert abs(np.log(aspect).mean()) < 0.01
    # Area is uniform only if every aspect ratio fits: below 3/4 of the square.
    low = area[area < 0.7]
    assert abs(low.mean() - 0.351) < 0.01


@settings(max_examples=50)
@given(
    st.integers(20, 400),
    st.integers(20, 400),
    st.integers(8, 64),
    st.integers(0, 2**53 - 1),
    st.floats(0.05, 1),
)
def test_crops_stay_in_the_photo(width: int, height: int, size: int, seed: int, crop: float) -> None:
    source = build_pyramid(np.zeros((height, width, 3), dtype=np.uint8), enlarge=size > 20)
    p = place(Geometry(**(PAPER | {"crop": crop})), size, [source], uniforms(seed, 0, 0, 50))
    assert (p.x >= 0).all() and (p.x + p.width <= width).all() and (p.width > 0).all()
    assert (p.y >= 0).all() and (p.y + p.height <= height).all() and (p.height > 0).all()
    assert (p.level_index >= 0).all() and (p.level_index < len(source.levels)).all()


def test_a_patch_does_not_depend_on_its_neighbours() -> None:
    geometry, source = Geometry(**PAPER), pyramid()
    together = places(geometry, source, n=50)
    alone = place(geometry, 32, [source], uniforms(0, 0, 30, 1))
    warped = [Warp(geometry, 32, [source], p)[i] for p, i in ((together, 30), (alone, 0))]
    assert np.array_equal(*warped)


def test_matrix_entries_are_short_binary_fractions() -> None:
    p = places(Geometry(**PAPER), pyramid())
    assert ((p.matrix[:, :, :2] * 2**24) % 1 == 0).all()
    assert ((p.matrix[:, :, 2] * 2**12) % 1 == 0).all()


def test_the_identity_crop_returns_the_photo() -> None:
    still = PAPER | {"crop": 1, "area": (1, 1), "aspect": (1, 1), "oversize": 1, "rotation": 0, "shear": 0}
    photo = make_photo(64, 64)
    for corners in ("black", "photo"):
        geometry = Geometry(**(still | {"corners": corners}))
        p = place(geometry, 64, [build_pyramid(photo, enlarge=True)], uniforms(0, 0, 0, 1))
        assert np.array_equal(Warp(geometry, 64, [build_pyramid(photo, enlarge=True)], p)[0], photo)


def reference(photo: np.ndarray, p: Placements, i: int, size: int) -> np.ndarray:
    """Return a patch of torchvision's chain: crop, antialiased bicubic resize to √2 × size, affine, center crop."""
    side = math.floor(math.sqrt(2) * size)
    top, left = round(p.y[i]), round(p.x[i])
    height, width = max(round(p.height[i]), 1), max(round(p.width[i]), 1)
    image = torch.from_numpy(photo).permute(2, 0, 1)
    image = TF.resized_crop(image, top, left, height, width, [side, side], TF.InterpolationMode.BICUBIC, True)
    image = TF.affine(
        image, float(p.rotation[i]), [0, 0], 1.0, [float(p.shear[i]), 0.0], TF.InterpolationMode.BILINEAR
    )
    return TF.center_crop(image, [size, size]).permute(1, 2, 0).numpy()


def test_the_warp_agrees_with_the_chain_it_replaces() -> None:
    photo = make_photo(800, 600)
    source = build_pyramid(photo, enlarge=True)
    geometry = Geometry(**PAPER)
    p = places(geometry, source, n=150)
    warp = Warp(geometry, 32, [source], p)
    errors = [np.abs(warp[i].astype(float) - reference(photo, p, i, 32)) for i in range(150)]
    # The chain rounds crops to whole pixels and resamples twice, so errors of a few gray levels remain. The mean
    # error is 8 with a wrong direction of shear, and 12 with a wrong direction of rotation.
    assert np.mean(errors) < 4
    black = [(warp[i] == 0).all(axis=2).mean() for i in range(150)]
    expected = [(reference(photo, p, i, 32) == 0).all(axis=2).mean() for i in range(150)]
    assert abs(np.mean(black) - np.mean(expected)) < 0.0005
    assert np.mean(expected) > 0.0005


def sharpness(patches: list[np.ndarray]) -> tuple[float, float]:
    """Return two measures of sharpness of the gray patches.

    They are the mean absolute horizontal gradient, and the share of energy above 1/4 cycle a pixel.
    """
    gray = np.stack(patches).astype(float) @ np.array([0.299, 0.587, 0.114])
    spectrum = np.abs(np.fft.fft2(gray - gray.mean(axis=(1, 2), keepdims=True))) ** 2
    frequency = np.abs(np.fft.fftfreq(gray.shape[1]))
    high = np.maximum(frequency[:, None], frequency) > 0.25
    return float(np.abs(np.diff(gray, axis=2)).mean()), float(spectrum[:, high].sum() / spectrum.sum())


@pytest.mark.parametrize("size", [32, 96])
def test_patches_are_as_sharp_as_the_references_and_no_more_aliased(size: int) -> None:
    """At every scale, patches are as sharp as those of the reference, and have no more aliasing.

    The test compares each scale alone, because blur at one scale could hide aliasing at another scale. Ours and the
    reference have black corners. Dead leaves have edges and scales like photographs.

    This test fails if the levels are a whole octave apart and are read at scales from 1 to 2. Then gradients are 0.82
    to 1.32 times those of the reference, and the energy of high frequencies is doubled.
    """
    photo = make_source("dead-leaves", 1600, 900, 1)
    source = build_pyramid(photo, enlarge=True)
    geometry = Geometry(**PAPER)
    p = places(geometry, source, n=1200, size=size)
    warp = Warp(geometry, size, [source], p)
    order = np.argsort(p.width * p.height)
    for numbers, tolerance in ((order, 0.06), *((part, 0.15) for part in np.array_split(order, 5))):
        ours = sharpness([warp[i] for i in numbers])
        theirs = sharpness([reference(photo, p, i, size) for i in numbers])
        assert abs(ours[0] / theirs[0] - 1) < 0.03, (ours, theirs)
        assert abs(ours[1] / theirs[1] - 1) < tolerance, (ours, theirs)


def test_corners_show_the_photo_on_request() -> None:
    source = pyramid()
    geometry = Geometry(**(PAPER | {"corners": "photo"}))
    p = places(geometry, source, n=200)
    warp = Warp(geometry, 32, [source], p)
    assert p.clipped.any()
    assert not any((warp[int(i)] == 0).all(axis=2).any() for i in np.flatnonzero(p.clipped))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("crop: 1.5", "geometry.crop: Input should be less than or equal to 1"),
        ("area: [0.5, 0.2]", "geometry: area is [0.5, 0.2], expected 0 < low"),
        ("corners: white", "geometry.corners: Input should be 'black' or 'photo'"),
        ("crp: 1", "unknown key 'geometry.crp'; did you mean 'geometry.crop'?"),
        ("zoom: 2", "unknown key 'geometry.zoom'; known keys are area, aspect"),
    ],
)
def test_a_recipes_fault_is_named_by_its_key(change: str, part: str) -> None:
    from importlib import resources

    from patchgen.recipe import parse_recipe

    text = (resources.files("patchgen") / "recipes/asano2023.yaml").read_text()
    key = change.split(":", maxsplit=1)[0]
    lines = [line for line in text.splitlines() if not line.startswith(f"  {key}:")]
    lines.insert(lines.index("geometry:") + 1, f"  {change}")
    with pytest.raises(PatchgenError) as caught:
        parse_recipe("\n".join(lines), "mine.yaml")
    assert str(caught.value).startswith("recipe mine.yaml: ")
    assert part in str(caught.value)


@pytest.mark.parametrize(("text", "part"), [("a: [", "not YAML"), ("- 1", "contains a YAML list"), ("", "is empty")])
def test_files_that_are_no_recipe(text: str, part: str) -> None:
    from patchgen.recipe import parse_recipe

    with pytest.raises(PatchgenError, match=part):
        parse_recipe(text, "mine.yaml")


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(PatchgenError, match=r"did you mean asano2023\?"):
        load_recipe("asano2032")


def test_the_formula_of_the_format_page() -> None:
    """The warp reads each pixel from the place in the photo that the formula of ``manifests/FORMAT.md`` computes.

    The last line checks the worked example of that page.
    """
    photo = make_source("dead-leaves", 640, 480, 0)
    geometry = Geometry(**(PAPER | {"corners": "photo", "hflip": 0.5, "vflip": 0.5}))
    p = places(geometry, build_pyramid(photo, enlarge=False), n=200, seed=5)
    side = math.floor(geometry.oversize * 32)
    for i in range(200):
        for column, row in ((0, 0), (31, 0), (7, 20)):
            u, v = column + 0.5 - 16, row + 0.5 - 16
            u, v = -u if p.hflip[i] else u, -v if p.vflip[i] else v
            angle, slope = math.radians(p.rotation[i]), math.tan(math.radians(p.shear[i]))
            a = u * math.cos(angle) + v * math.sin(angle)
            b = -u * math.sin(angle) + v * math.cos(angle)
            a += b * slope
            x = p.x[i] + p.width[i] * (0.5 + a / side)
            y = p.y[i] + p.height[i] * (0.5 + b / side)
            read = (p.matrix[i] @ [column, row, 1] + 0.5) / p.ratio[i]
            assert np.abs(read - (x, y)).max() < 0.01
    plain = places(Geometry(**(PAPER | {"corners": "photo"})), build_pyramid(photo, enlarge=False), n=1, seed=5)
    assert (plain.matrix[0] @ [31, 0, 1] + 0.5) / plain.ratio[0] == pytest.approx((512.668, 229.065), abs=0.001)
