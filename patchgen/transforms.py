"""Albumentations transforms that a recipe may name, each bit-exact on every CPU."""

import os
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # read at import, which would ask the network

import albumentations
import numpy.typing as npt

from patchgen.colour import ColorJitterConfig, Floats, Patch, jitter, sample_jitter
from patchgen.randomness import DRAWS, to_unit


class ColorJitter(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """torchvision's ColorJitter in exact arithmetic: four operations in random order, clipped after each.

    Hue is turned in the YIQ plane, which keeps luma, instead of in HSV. ``patchgen`` draws the parameters of
    a whole shard at once with ``sample``; in any other Albumentations pipeline the transform draws its own.
    """

    def __init__(self, config: ColorJitterConfig) -> None:
        super().__init__(p=config.p)
        self.config = config

    def sample(self, draws: Floats) -> dict[str, npt.NDArray[Any]]:
        """Parameters of n patches from draws in [0, 1) of shape (n, ≥ 6); see ``sample_jitter``."""
        return sample_jitter(self.config, draws)

    def apply(self, img: Patch, order: int, **params: Any) -> Patch:
        """Jitter one RGB uint8 patch of shape (H, W, 3) with one patch's parameters from ``sample``."""
        return jitter(img, order, params)

    def get_params(self) -> dict[str, Any]:
        """One patch's parameters, inside an Albumentations pipeline, which itself decides on ``p``."""
        raw = self.random_generator.bit_generator.random_raw(DRAWS)
        columns = self.sample(to_unit(raw)[None])
        return {name: column[0] for name, column in columns.items() if name != "applied"}
