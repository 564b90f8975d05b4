"""Test exact elementary functions and counter-based draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchgen.pixels.exact_math import cos_degrees, exp, floor_log2, quantize, sin_degrees
from patchgen.pixels.randomness import DRAWS, between, uniforms


def test_functions_are_close_to_the_true_ones() -> None:
    angles = np.linspace(-180, 180, 2001)
    assert np.abs(sin_degrees(angles) - np.sin(np.radians(angles))).max() < 1e-13
    assert np.abs(cos_degrees(angles) - np.cos(np.radians(angles))).max() < 1e-13
    x = np.linspace(-8, 8, 2001)
    assert np.abs(exp(x) / np.exp(x) - 1).max() < 1e-12


@given(st.floats(1e-9, 1e9))
def test_floor_log2_is_exact(x: float) -> None:
    k = int(floor_log2(np.array([x]))[0])
    assert 2.0**k <= x < 2.0 ** (k + 1)


def test_powers_of_two_are_their_own_level() -> None:
    assert floor_log2(2.0 ** np.arange(-3, 4)).tolist() == list(range(-3, 4))


@given(st.floats(-1e5, 1e5), st.integers(0, 24))
def test_quantized_values_are_short_and_near(x: float, bits: int) -> None:
    q = float(quantize(np.array([x]), bits)[0])
    assert (q * 2**bits).is_integer()
    assert abs(q - x) <= 0.5 * 2.0**-bits


@pytest.mark.parametrize("first", [0, 1, 999_999_000])
def test_draws_depend_on_seed_stream_and_index_alone(first: int) -> None:
    block = uniforms(7, 0, first, 100)
    assert block.shape == (100, DRAWS)
    assert np.array_equal(uniforms(7, 0, first + 40, 10), block[40:50])
    assert not np.array_equal(uniforms(8, 0, first, 100), block)
    assert not np.array_equal(uniforms(7, 1, first, 100), block)


def test_draws_are_philox_words_for_good() -> None:
    # Philox-4x64-10 with key (0, 0) and counters 1 and 2. The values were computed once with NumPy 2.4.
    words = (uniforms(0, 0, 0, 1)[0, :8] * 2**53).astype(np.uint64)
    raw = np.random.Philox(key=0).random_raw(8) >> np.uint64(11)
    assert np.array_equal(words, raw)
    assert words[:4].tolist() == [
        104_003_916_602_523,
        2_175_681_743_263_000,
        1_003_634_882_753_029,
        5_083_794_959_104_694,
    ]


def test_draws_look_uniform() -> None:
    draws = uniforms(0, 0, 0, 5000)
    assert draws.min() >= 0 and draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 5 / math.sqrt(12 * 5000)
    correlations = np.corrcoef(draws.T) - np.eye(DRAWS)
    assert np.abs(correlations).max() < 6 / math.sqrt(5000)
    assert between(np.array([0.0, 0.5]), -2, 4).tolist() == [-2, 1]
