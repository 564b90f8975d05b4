"""Compute elementary functions with the same bits on every IEEE-754 machine, and define the types of arrays.

``np.sin`` and ``np.exp`` differ in the last bit between CPUs. The functions below use only additions,
multiplications and divisions of float64 arrays. IEEE-754 defines the rounding of each operation, and NumPy does not
fuse two operations into one.
"""

import math

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # an RGB image (height, width, 3)
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

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
    """Return the sine of angles in degrees, |angle| ≤ 180, with an error below 1e-13."""
    x = angle * _RADIANS_PER_DEGREE
    return x * _horner(_SIN, x * x)


def cos_degrees(angle: Floats) -> Floats:
    """Return the cosine of angles in degrees, |angle| ≤ 180, with an error below 1e-13."""
    x = angle * _RADIANS_PER_DEGREE
    return _horner(_COS, x * x)


def exp(x: Floats) -> Floats:
    """Return e to the power of x, |x| ≤ 8, with a relative error below 1e-12."""
    result = _horner(_EXP, x / 8.0)
    for _ in range(3):
        result = result * result
    return result


def floor_log2(x: Floats) -> Ints:
    """Return the largest integer k with 2**k ≤ x, for x > 0. The result is exact, unlike ``np.log2``."""
    return np.frexp(x)[1].astype(np.int64) - 1


def quantize(x: Floats, bits: int) -> Floats:
    """Round ``x`` to a multiple of 2**-bits. A value halfway between two multiples becomes the even multiple."""
    return np.rint(x * 2.0**bits) * 2.0**-bits
