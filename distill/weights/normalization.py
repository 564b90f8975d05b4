"""Checks of the mean and standard deviation by which a network's input is normalized: of R, G and B in [0, 1]."""

from collections.abc import Sequence
from typing import TypeVar

S = TypeVar("S", bound=Sequence[float])


def check_mean(values: S) -> S:
    """Return the means of the three channels unchanged.

    Raises:
        ValueError: one is outside [0, 1], such as those of RGB in 0 to 255.
    """
    return _check("mean", values, all(0 <= value <= 1 for value in values))


def check_std(values: S) -> S:
    """Return the deviations of the three channels unchanged. A network that takes RGB in 0 to 255 has 1/255.

    Raises:
        ValueError: one is below 1e-6 or above 1.
    """
    return _check("std", values, all(1e-6 <= value <= 1 for value in values))


def _check(name: str, values: S, good: bool) -> S:
    if good:  # which no comparison with nan is
        return values
    expected = "from 0 to 1" if name == "mean" else "from 0.000001 to 1"
    raise ValueError(
        f"{name} is {', '.join(f'{value:g}' for value in values)}, expected numbers {expected}, of RGB in [0, 1]"
        + ("; divide values of RGB in 0 to 255 by 255" if max(values) > 1 else "")
    )
