"""Compute elementary functions with the same bits on every IEEE-754 machine.

``np.sin`` and ``np.exp`` differ by an ulp between CPUs. These use only addition, multiplication and
division of float64 arrays, which IEEE-754 rounds in one way, and which NumPy does not fuse across calls.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SIN = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(14)]
_COS = [(-1.0) ** k / math.factorial(2 * k) for k in range(14)]
_EXP = [1.0 / math.factorial(k) for k in range(16)]
_RADIANS_PER_DEGREE = 0.017453292519943295


def _horner(coefficients: list[float], x: Floats) -> Floats:
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def sin_degrees(angle: Floats) -> Floats:
    """Return the sine of angles in degrees, |angle| ≤ 180, within 1e-13."""
    x = angle * _RADIANS_PER_DEGREE
    return x * _horner(_SIN, x * x)


def cos_degrees(angle: Floats) -> Floats:
    """Return the cosine of angles in degrees, |angle| ≤ 180, within 1e-13."""
    x = angle * _RADIANS_PER_DEGREE
    return _horner(_COS, x * x)


def exp(x: Floats) -> Floats:
    """Return e to the x, |x| ≤ 8, within a relative 1e-12."""
    result = _horner(_EXP, x / 8.0)
    for _ in range(3):
        result = result * result
    return result


def floor_log2(x: Floats) -> npt.NDArray[np.int64]:
    """Return the largest integer k with 2**k ≤ x, for x > 0; exact, unlike a rounded logarithm."""
    return np.frexp(x)[1].astype(np.int64) - 1


def quantize(x: Floats, bits: int) -> Floats:
    """Return ``x`` rounded to a multiple of 2**-bits, halves to even."""
    return np.rint(x * 2.0**bits) * 2.0**-bits
