"""Test color jitter: its operations against torchvision's, and its random parameters."""

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF

from patchgen.pixels.color_jitter import (
    ORDERS,
    ColorJitterConfig,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    jitter,
    sample_jitter,
)
from patchgen.pixels.randomness import uniforms
from tests.conftest import make_photo

PAPER = ColorJitterConfig(name="ColorJitter", p=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
PATCH = make_photo(32, 32)


def torchvision(operation: str, factor: float) -> np.ndarray:
    image = torch.from_numpy(PATCH).permute(2, 0, 1)
    return getattr(TF, f"adjust_{operation}")(image, factor).permute(1, 2, 0).numpy()


def apply(operation, patch: np.ndarray, factor: float) -> np.ndarray:
    return operation([patch], np.array([factor]))[0]


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.4])
@pytest.mark.parametrize("operation", [adjust_brightness, adjust_contrast, adjust_saturation])
def test_operations_mean_what_torchvisions_do(operation, factor: float) -> None:
    theirs = torchvision(operation.__name__.removeprefix("adjust_"), factor)
    assert np.abs(apply(operation, PATCH, factor).astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("turns", [-0.1, 0.04, 0.1])
def test_hue_turns_as_in_hsv_and_keeps_luma(turns: float) -> None:
    turned = apply(adjust_hue, PATCH, turns)
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(int) for image in (PATCH, turned)]
    inside = ((turned > 0) & (turned < 255)).all(axis=2)
    assert np.abs(gray[0] - gray[1])[inside].max() <= 1
    # The two color spaces differ, so the test compares only directions. The error must be smaller in the right
    # direction than in the opposite direction.
    there, back = (np.abs(turned.astype(int) - torchvision("hue", t)).mean() for t in (turns, -turns))
    assert there < 0.7 * back


def test_identity_factors_change_nothing() -> None:
    for operation in (adjust_brightness, adjust_contrast, adjust_saturation):
        assert np.array_equal(apply(operation, PATCH, 1.0), PATCH)
    assert np.array_equal(apply(adjust_hue, PATCH, 0.0), PATCH)
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    assert np.abs(apply(adjust_hue, grays, 0.1).astype(int) - grays).max() <= 1


def test_sampled_parameters() -> None:
    columns = sample_jitter(PAPER, uniforms(0, 1, 0, 20_000))
    assert abs(columns["applied"].mean() - 0.5) < 0.02
    assert np.array_equal(np.unique(columns["order"]), np.arange(len(ORDERS)))
    for name in ("brightness", "contrast", "saturation"):
        assert 0.6 <= columns[name].min() < 0.61 and 1.39 < columns[name].max() <= 1.4
    assert -0.1 <= columns["hue"].min() < -0.099 and 0.099 < columns["hue"].max() <= 0.1


def test_the_order_matters_and_is_obeyed() -> None:
    factors = {"brightness": 1.4, "contrast": 0.6, "saturation": 1.4, "hue": 0.1}

    def jittered(order: int) -> np.ndarray:
        sampled = {"order": order, **factors}
        return jitter([PATCH], {name: np.array([value]) for name, value in sampled.items()})[0]

    by_hand = PATCH
    steps = ((adjust_brightness, 1.4), (adjust_contrast, 0.6), (adjust_saturation, 1.4), (adjust_hue, 0.1))
    for operation, factor in steps:
        by_hand = apply(operation, by_hand, factor)
    assert ORDERS[0] == (0, 1, 2, 3)
    assert np.array_equal(jittered(0), by_hand)
    assert not np.array_equal(jittered(0), jittered(23))
