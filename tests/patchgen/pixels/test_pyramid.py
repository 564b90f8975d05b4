"""Test the pyramid: Pillow's filter in exact arithmetic, and levels a quarter of an octave apart."""

import numpy as np
import pytest
from PIL import Image

from patchgen.pixels.pyramid import build_pyramid, resize
from tests.conftest import make_photo


@pytest.mark.parametrize(("height", "width"), [(60, 80), (101, 134), (240, 320), (119, 159), (57, 70), (120, 160)])
def test_it_resizes_as_pillow_does(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    ours = resize(image, height, width).astype(int)
    theirs = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 0.02


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_flat_stays_flat(value: int) -> None:
    flat = np.full((97, 61, 3), value, dtype=np.uint8)
    for level in build_pyramid(flat, enlarge=True).levels:
        assert (level == value).all()


def test_levels_and_their_numbers() -> None:
    pyramid = build_pyramid(make_photo(320, 240), enlarge=True)
    assert pyramid.numbers == (-4, *range(pyramid.numbers[-1] + 1))
    for number, level in zip(pyramid.numbers, pyramid.levels, strict=True):
        assert abs(level.shape[1] * 2 ** (number / 4) / 320 - 1) < 0.5 / level.shape[1] * 1.01
    assert min(pyramid.levels[-1].shape[:2]) >= 8
    wanted = np.array([-9, -3, -2, -1, 0, 1, 7, 99])
    numbers = np.array(pyramid.numbers)
    assert numbers[pyramid.nearest(wanted)].tolist() == [-4, -4, 0, 0, 0, 1, 7, numbers[-1]]
    plain = build_pyramid(make_photo(320, 240), enlarge=False)
    assert np.array(plain.numbers)[plain.nearest(wanted)].tolist() == [0, 0, 0, 0, 0, 1, 7, numbers[-1]]
    assert all(np.array_equal(a, b) for a, b in zip(plain.levels, pyramid.levels[1:], strict=True))


def test_the_smallest_photo() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    assert [level.shape for level in build_pyramid(pixel, enlarge=True).levels] == [(2, 2, 3), (1, 1, 3)]


def test_sums_fit_float32_exactly() -> None:
    """For any size, the weights are integers with the sum 2^14. They are so small that float32 sums are exact."""
    from patchgen.pixels.pyramid import _weights

    for n, count in [(2560, 2153), (1920, 960), (7, 3), (3, 7), (1000, 1), (1, 5), (640, 453)]:
        first, weights = _weights(n, count)
        assert (weights == np.rint(weights)).all() and (weights.sum(axis=1) == 2**14).all()
        assert 255 * np.abs(weights).sum(axis=1).max() < 2**24 - 2**13
        assert first.min() >= 0 and (first + weights.shape[1]).max() <= n
