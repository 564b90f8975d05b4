"""Batch augmentation against slow one-image code, and the order of patches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.augment import AugmentConfig, augment, draw, normalise
from distill.patches import Order
from distill.randomness import generator

IMAGES = torch.randint(1, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def slow(images: torch.Tensor, config: AugmentConfig, seed: int) -> torch.Tensor:
    """The same, image by image, in the order flip (as columns), crop, mix."""
    draws = draw(config, len(images), 16, generator(seed, "augment", 0))
    out = torch.zeros_like(images)
    for b, image in enumerate(images):
        for y in range(16):
            for x in range(16):
                row, column = (
                    int(draws.rows[b, y]) - config.pad_crop,
                    int(draws.columns[b, x]) - config.pad_crop,
                )
                if 0 <= row < 16 and 0 <= column < 16:
                    out[b, y, x] = image[row, column]
    if draws.box is None:
        return out
    top, bottom, left, right = draws.box
    mixed = out.clone()
    for b in range(len(out)):
        mixed[b, top:bottom, left:right] = out[len(out) - 1 - b, top:bottom, left:right]
    return mixed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(flip=False, pad_crop=0, cutmix_alpha=0),
        AugmentConfig(cutmix_alpha=1.0),
        AugmentConfig(flip=True, pad_crop=0, cutmix_alpha=0),
    ],
)
def test_against_slow_code(config: AugmentConfig, seed: int) -> None:
    draws = draw(config, len(IMAGES), 16, generator(seed, "augment", 0))
    assert torch.equal(augment(IMAGES, config, draws), slow(IMAGES, config, seed))


def test_nothing_asked_nothing_done() -> None:
    config = AugmentConfig(flip=False, pad_crop=0, cutmix_alpha=0)
    assert torch.equal(augment(IMAGES, config, draw(config, 6, 16, generator(0, "augment", 0))), IMAGES)


def test_a_flip_mirrors_half_of_the_images() -> None:
    config = AugmentConfig(flip=True, pad_crop=0, cutmix_alpha=0)
    images = IMAGES[:1].expand(2000, -1, -1, -1)
    out = augment(images, config, draw(config, 2000, 16, generator(0, "augment", 0)))
    same = (out == IMAGES[:1]).flatten(1).all(dim=1)
    mirrored = (out == IMAGES[:1].flip(2)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all() and 0.45 < mirrored.double().mean() < 0.55


def test_cutmix_boxes_have_the_area_of_the_paper() -> None:
    config = AugmentConfig(cutmix_alpha=0.25)
    boxes = [draw(config, 2, 32, generator(0, "augment", step)).box for step in range(4000)]
    areas = np.array([(b - t) * (r - left) / 1024 for t, b, left, r in boxes])
    # Beta(1/4, 1/4) crowds at both ends; boxes are cut at the border, which thins out the large ones.
    assert 0.2 < (areas < 0.05).mean() < 0.35 and 0.2 < np.median(areas) < 0.32 and areas.max() > 0.8
    assert min(t for t, *_ in boxes) >= 0 and max(b for _, b, *_ in boxes) <= 32


def test_draws_are_a_function_of_the_step() -> None:
    config = AugmentConfig()
    first, again, other = (draw(config, 4, 16, generator(0, "augment", step)) for step in (3, 3, 4))
    assert torch.equal(first.rows, again.rows) and torch.equal(first.columns, again.columns)
    assert first.box == again.box
    assert not (torch.equal(first.rows, other.rows) and torch.equal(first.columns, other.columns))


def test_normalise() -> None:
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    x = normalise(IMAGES, mean, std)
    assert x.shape == (6, 3, 16, 16) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = (IMAGES[2, 3, 4].double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert torch.allclose(x[2, :, 3, 4].double(), expected, atol=1e-6)


@settings(max_examples=60)
@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 5))
def test_every_epoch_is_one_permutation(n: int, batch_size: int, seed: int) -> None:
    order = Order(n, batch_size, seed)
    steps = -(-3 * n // batch_size)
    seen = torch.cat([order.batch(step) for step in range(steps)])
    assert len(seen) == steps * batch_size
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_order_from_the_middle_is_the_order_from_the_start() -> None:
    whole = Order(100, 7, 1)
    batches = [whole.batch(step) for step in range(40)]
    late = Order(100, 7, 1)
    assert all(torch.equal(late.batch(step), batches[step]) for step in range(25, 40))
    assert not torch.equal(torch.cat(batches)[:100], torch.cat(batches)[100:200])
    assert not torch.equal(Order(100, 7, 2).batch(0), batches[0])
