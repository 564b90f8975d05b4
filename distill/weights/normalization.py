"""Check the mean and standard deviation that normalize the colors R, G and B, given in [0, 1]."""

from collections.abc import Sequence
from typing import TypeVar

S = TypeVar("S", bound=Sequence[float])


def check_mean(values: S) -> S:
    """Return ``values``, the means of R, G and B. Raises ValueError if a mean is outside [0, 1]."""
    return _check("mean", values, 0, "from 0 to 1")


def check_std(values: S) -> S:
    """Return ``values``, the standard deviations of R, G and B. Raises ValueError if one is outside [1e-6, 1]."""
    return _check("std", values, 1e-6, "from 0.000001 to 1")


def _check(name: str, values: S, least: float, expected: str) -> S:
    if all(least <= value <= 1 for value in values):  # which no comparison with nan is
        return values
    found = f"{name} is {', '.join(f'{value:g}' for value in values)}, expected numbers {expected}"
    fix = f"if the {name} is in units of 0 to 255, divide it by 255" if max(values) > 1 else "correct the values"
    raise ValueError(f"{found}; {fix}")
