"""Jitter colors with the same bits on every CPU: brightness, contrast, saturation and hue in random order.

The operations are those of torchvision, except hue: hue is rotated in the YIQ plane, so luma does not change.
The results of Albumentations' ColorJitter (HSV, ``addWeighted``) differ between CPUs. Look-up tables and
``cv2.transform`` with matrices of at most 3×4 numbers have the same results on every CPU.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from patchgen.pixels.exact_math import Floats, Pixels, cos_degrees, quantize, sin_degrees
from patchgen.pixels.randomness import between

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
ORDERS = tuple(itertools.permutations(range(4)))  # the column ``order`` of a patch is an index of this tuple
_FACTOR_BITS = 16
_MATRIX_BITS = 12
_RAMP = np.arange(256, dtype=np.float64)
# ITU-R BT.601 luma, as in cv2's conversion to gray, and a rotation of the YIQ chroma plane by 90°.
# A rotation by an angle is LUMA + cos·(1 - LUMA) + sin·TURN. Positive angles turn red to yellow, as in HSV.
_LUMA = np.tile([0.299, 0.587, 0.114], (3, 1))
_TURN = np.array([[-0.16774, -0.32931, 0.49705], [0.32811, -0.03547, -0.29264], [-1.24955, 1.04634, 0.20321]])


class ColorJitterConfig(BaseModel):
    """The ranges of a recipe's ColorJitter. For example, ``contrast`` 0.4 draws contrast factors from 0.6 to 1.4."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Literal["ColorJitter"]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches that are jittered")]
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]  # full turns


def sample_jitter(config: ColorJitterConfig, draws: Floats) -> dict[str, Any]:
    """Return a dict of jitter parameters (n,) for n patches. ``draws`` (n, ≥ 6) are random numbers in [0, 1).

    ``applied`` is true for jittered patches. ``order`` is an index of the tuple ``ORDERS``. ``hue`` is in full turns.
    """
    order = (draws[:, 1] * len(ORDERS)).astype(np.int8)
    sampled: dict[str, Any] = {"applied": draws[:, 0] < config.p, "order": order}
    for column, name in enumerate(OPERATIONS, 2):
        strength, middle = getattr(config, name), 0 if name == "hue" else 1
        sampled[name] = quantize(between(draws[:, column], middle - strength, middle + strength), _FACTOR_BITS)
    return sampled


class Jitter:
    """Jitters patches with consecutive indices. ``columns`` contains the parameters of all these patches."""

    name = "ColorJitter"

    def __init__(self, config: ColorJitterConfig, draws: Floats) -> None:
        self.columns = sample_jitter(config, draws)

    def __call__(self, patches: list[Pixels], start: int) -> None:
        """Jitter in place patches whose ``applied`` is true. ``patches[0]`` is row ``start`` of ``columns``."""
        numbers = np.flatnonzero(self.columns["applied"][start : start + len(patches)])
        chosen = {name: column[start + numbers] for name, column in self.columns.items()}
        done = jitter([patches[i] for i in numbers], chosen)
        for i, patch in zip(numbers, done, strict=True):
            patches[i] = patch


def jitter(patches: Sequence[Pixels], sampled: dict[str, Any]) -> list[Pixels]:
    """Return RGB uint8 patches (H, W, 3) after the four operations, in the order that was drawn for each patch.

    ``sampled`` is the result of ``sample_jitter`` for these patches. ``applied`` is ignored: every patch is jittered.
    In each of four rounds, the patches with the same next operation are processed together.
    """
    done = list(patches)
    orders = np.array(ORDERS, dtype=np.int64).reshape(-1, len(OPERATIONS))[sampled["order"]]
    for position in range(len(OPERATIONS)):
        for operation, name in enumerate(OPERATIONS):
            numbers = np.flatnonzero(orders[:, position] == operation)
            changed = _APPLY[operation]([done[i] for i in numbers], sampled[name][numbers])
            for i, patch in zip(numbers, changed, strict=True):
                done[i] = patch
    return done


def adjust_brightness(patches: list[Pixels], factors: Floats) -> list[Pixels]:
    """Multiply every value of a patch by the patch's factor. Round, and clip to 0 to 255."""
    return _look_up(patches, _RAMP * factors[:, None])


def adjust_contrast(patches: list[Pixels], factors: Floats) -> list[Pixels]:
    """Multiply the difference of every value from the patch's mean luma by the patch's factor. Round, and clip."""
    sums = [cv2.sumElems(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY))[0] for patch in patches]  # whole numbers
    pixels = patches[0].shape[0] * patches[0].shape[1] if patches else 1
    means = np.floor((2 * np.array(sums) + pixels) / (2 * pixels))[:, None]
    return _look_up(patches, (_RAMP - means) * factors[:, None] + means)


def adjust_saturation(patches: list[Pixels], factors: Floats) -> list[Pixels]:
    """Multiply the difference of every pixel from the pixel's luma by the patch's factor. Round, and clip."""
    return _transform(patches, _LUMA + factors[:, None, None] * (np.eye(3) - _LUMA))


def adjust_hue(patches: list[Pixels], turns: Floats) -> list[Pixels]:
    """Rotate the hue of every pixel by the patch's entry in ``turns`` (1 = 360°, |turns| ≤ 0.5). Keep luma. Clip."""
    angle = 360.0 * turns[:, None, None]
    return _transform(patches, _LUMA + cos_degrees(angle) * (np.eye(3) - _LUMA) + sin_degrees(angle) * _TURN)


_APPLY = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)  # in the order of ``OPERATIONS``


def _look_up(patches: list[Pixels], values: Floats) -> list[Pixels]:
    tables = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return [cv2.LUT(patch, table) for patch, table in zip(patches, tables, strict=True)]


def _transform(patches: list[Pixels], matrices: Floats) -> list[Pixels]:
    """Multiply each patch by its color matrix (3, 3). The entries are multiples of 2**-12, so all sums are exact."""
    exact = quantize(matrices, _MATRIX_BITS).astype(np.float32)
    return [cv2.transform(patch, matrix) for patch, matrix in zip(patches, exact, strict=True)]
