"""Colour operations whose every bit is the same on every CPU; ``transforms`` makes Albumentations of them.

Albumentations' own ColorJitter goes through HSV and ``addWeighted``, which differ between CPUs. These use
look-up tables and ``cv2.transform`` with short matrices, which do not.
"""

import itertools
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from patchgen.exactmath import cos_degrees, quantise, sin_degrees
from patchgen.randomness import between

Floats = npt.NDArray[np.float64]
Patch = npt.NDArray[np.uint8]

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
ORDERS = tuple(itertools.permutations(range(4)))
_FACTOR_BITS = 16
_MATRIX_BITS = 12
_RAMP = np.arange(256, dtype=np.float64)
# ITU-R BT.601 luma, as cv2's RGB→gray, and a quarter turn of the YIQ chroma plane, which keeps luma and grays.
# A turn by an angle is LUMA + cos·(1 - LUMA) + sin·TURN; positive turns go from red to yellow, as in HSV.
_LUMA = np.tile([0.299, 0.587, 0.114], (3, 1))
_TURN = np.array([[-0.16774, -0.32931, 0.49705], [0.32811, -0.03547, -0.29264], [-1.24955, 1.04634, 0.20321]])


class ColorJitterConfig(BaseModel):
    """Brightness, contrast and saturation factors from 1 ± value; hue from ± value of a full turn."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Literal["ColorJitter"]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches it is applied to")]
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]


def sample_jitter(config: ColorJitterConfig, draws: Floats) -> dict[str, npt.NDArray[Any]]:
    """Parameters of n patches from draws in [0, 1) of shape (n, ≥ 6), each an array of shape (n,).

    ``applied`` says to which patches; ``order`` is an index into ``ORDERS``; ``hue`` is in turns.
    """
    strengths = (config.brightness, config.contrast, config.saturation)
    factors = [
        quantise(between(draws[:, 2 + k], 1 - strength, 1 + strength), _FACTOR_BITS)
        for k, strength in enumerate(strengths)
    ]
    return {
        "applied": draws[:, 0] < config.p,
        "order": (draws[:, 1] * len(ORDERS)).astype(np.int8),
        "brightness": factors[0],
        "contrast": factors[1],
        "saturation": factors[2],
        "hue": quantise(between(draws[:, 5], -config.hue, config.hue), _FACTOR_BITS),
    }


def jitter(patch: Patch, order: int, factors: dict[str, float]) -> Patch:
    """Jitter one RGB uint8 patch of shape (H, W, 3): the four operations, in the order ``ORDERS[order]``."""
    for operation in ORDERS[order]:
        name = OPERATIONS[operation]
        patch = _APPLY[name](patch, float(factors[name]))
    return patch


def adjust_brightness(patch: Patch, factor: float) -> Patch:
    """Every value times ``factor``, rounded and clipped."""
    return cv2.LUT(patch, _table(_RAMP * factor))


def adjust_contrast(patch: Patch, factor: float) -> Patch:
    """Every value's distance from the patch's mean luma times ``factor``, rounded and clipped."""
    gray = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
    total, pixels = int(gray.sum(dtype=np.int64)), gray.size
    mean = (2 * total + pixels) // (2 * pixels)
    return cv2.LUT(patch, _table((_RAMP - mean) * factor + mean))


def adjust_saturation(patch: Patch, factor: float) -> Patch:
    """Every pixel's distance from its own luma times ``factor``, rounded and clipped."""
    return _transform(patch, _LUMA + factor * (np.eye(3) - _LUMA))


def adjust_hue(patch: Patch, turns: float) -> Patch:
    """Every pixel's chroma turned by ``turns`` of a circle, |turns| ≤ 0.5, luma kept, clipped."""
    angle = np.array([360.0 * turns])
    matrix = _LUMA + cos_degrees(angle) * (np.eye(3) - _LUMA) + sin_degrees(angle) * _TURN
    return _transform(patch, matrix)


_APPLY = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def _table(values: Floats) -> Patch:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _transform(patch: Patch, matrix: Floats) -> Patch:
    """A colour matrix in steps of 2**-12: every product and sum is exact in float32."""
    return cv2.transform(patch, quantise(matrix, _MATRIX_BITS).astype(np.float32))
