"""Color jitter with the same bits on every CPU: brightness, contrast, saturation and hue in random order.

The operations are torchvision's, but hue is rotated in the YIQ plane, which keeps luma, instead of in HSV.
Albumentations' ColorJitter uses HSV and ``addWeighted``, which differ between CPUs. These use look-up tables and
``cv2.transform`` with short matrices, which do not.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from patchgen.pixels.exact_math import Floats, cos_degrees, quantize, sin_degrees
from patchgen.pixels.randomness import between

Patch = npt.NDArray[np.uint8]

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
ORDERS = tuple(itertools.permutations(range(4)))
"""Orders of ``OPERATIONS``; the ``order`` of a patch is an index into it."""
_FACTOR_BITS = 16
_MATRIX_BITS = 12
_RAMP = np.arange(256, dtype=np.float64)
# ITU-R BT.601 luma, like cv2's RGB→gray, and a rotation of the YIQ chroma plane by 90°, which keeps luma and grays.
# A rotation by an angle is LUMA + cos·(1 - LUMA) + sin·TURN; positive angles go from red to yellow, as in HSV.
_LUMA = np.tile([0.299, 0.587, 0.114], (3, 1))
_TURN = np.array([[-0.16774, -0.32931, 0.49705], [0.32811, -0.03547, -0.29264], [-1.24955, 1.04634, 0.20321]])


class ColorJitterConfig(BaseModel):
    """Ranges of the parameters: brightness, contrast and saturation factors 1 ± value; hue ± value of a full turn."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: Literal["ColorJitter"]
    p: Annotated[float, Field(ge=0, le=1, description="share of patches it is applied to")]
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]


def sample_jitter(config: ColorJitterConfig, draws: Floats) -> dict[str, npt.NDArray[Any]]:
    """Return parameters of n patches, arrays of shape (n,), from draws in [0, 1) of shape (n, ≥ 6).

    ``applied`` says which patches are jittered; ``order`` is an index into ``ORDERS``; ``hue`` is in turns.
    """
    order = (draws[:, 1] * len(ORDERS)).astype(np.int8)
    sampled: dict[str, npt.NDArray[Any]] = {"applied": draws[:, 0] < config.p, "order": order}
    for column, name in enumerate(OPERATIONS, 2):
        strength, middle = getattr(config, name), 0 if name == "hue" else 1
        sampled[name] = quantize(between(draws[:, column], middle - strength, middle + strength), _FACTOR_BITS)
    return sampled


class Jitter:
    """The step of a recipe that jitters the patches of one range of indices; ``columns`` are their parameters."""

    name = "ColorJitter"

    def __init__(self, config: ColorJitterConfig, draws: Floats) -> None:
        self.columns = sample_jitter(config, draws)

    def __call__(self, patches: list[Patch], start: int) -> None:
        """Jitter ``patches`` in place; the first of them has position ``start`` in the range."""
        numbers = np.flatnonzero(self.columns["applied"][start : start + len(patches)])
        chosen = {name: column[start + numbers] for name, column in self.columns.items()}
        done = jitter([patches[i] for i in numbers], chosen)
        for i, patch in zip(numbers, done, strict=True):
            patches[i] = patch


def jitter(patches: Sequence[Patch], sampled: dict[str, npt.NDArray[Any]]) -> list[Patch]:
    """Return RGB uint8 patches (H, W, 3) after their four operations, each patch in its own order.

    ``sampled`` is what ``sample_jitter`` returns for them; ``applied`` is ignored. Patches with the same operation at
    the same position of their order share one computation of its tables or matrices.
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


def adjust_brightness(patches: list[Patch], factors: Floats) -> list[Patch]:
    """Multiply every value by its patch's factor; round and clip."""
    return _look_up(patches, _RAMP * factors[:, None])


def adjust_contrast(patches: list[Patch], factors: Floats) -> list[Patch]:
    """Multiply every value's distance from the patch's mean luma by the patch's factor; round and clip."""
    sums = [cv2.sumElems(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY))[0] for patch in patches]  # whole numbers
    pixels = patches[0].shape[0] * patches[0].shape[1] if patches else 1
    means = np.floor((2 * np.array(sums) + pixels) / (2 * pixels))[:, None]
    return _look_up(patches, (_RAMP - means) * factors[:, None] + means)


def adjust_saturation(patches: list[Patch], factors: Floats) -> list[Patch]:
    """Multiply every pixel's distance from its own luma by its patch's factor; round and clip."""
    return _transform(patches, _LUMA + factors[:, None, None] * (np.eye(3) - _LUMA))


def adjust_hue(patches: list[Patch], turns: Floats) -> list[Patch]:
    """Rotate every pixel's chroma by its patch's ``turns`` of a circle, |turns| ≤ 0.5, keeping luma; clip."""
    angle = 360.0 * turns[:, None, None]
    return _transform(patches, _LUMA + cos_degrees(angle) * (np.eye(3) - _LUMA) + sin_degrees(angle) * _TURN)


_APPLY = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)  # in the order of ``OPERATIONS``


def _look_up(patches: list[Patch], values: Floats) -> list[Patch]:
    tables = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return [cv2.LUT(patch, table) for patch, table in zip(patches, tables, strict=True)]


def _transform(patches: list[Patch], matrices: Floats) -> list[Patch]:
    """Apply color matrices, rounded to steps of 2**-12, so that every product and sum is exact in float32."""
    exact = quantize(matrices, _MATRIX_BITS).astype(np.float32)
    return [cv2.transform(patch, matrix) for patch, matrix in zip(patches, exact, strict=True)]
