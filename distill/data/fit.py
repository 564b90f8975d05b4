"""Bring evaluation images to one size."""

import dataclasses
from typing import Protocol

import torch
import torchvision.transforms.v2.functional as TF

from manifests.untrusted.decode import Pixels


class Fit(Protocol):
    """A function that resizes and crops an image, uint8 (H, W, 3), to ``size`` px."""

    @property
    def size(self) -> int: ...

    def __call__(self, image: Pixels, /) -> Pixels: ...


@dataclasses.dataclass(frozen=True)
class CenterFit:
    """Resize an image so that the short side is 8/7 of ``size`` px, and crop the center to ``size`` px.

    An image that has this size stays as it is.
    """

    size: int

    def __call__(self, image: Pixels, /) -> Pixels:
        if image.shape[:2] == (self.size, self.size):
            return image
        planes = torch.from_numpy(image.copy()).permute(2, 0, 1)
        resized = TF.resize(planes, [round(self.size * 8 / 7)], antialias=True)
        fitted: Pixels = TF.center_crop(resized, [self.size, self.size]).permute(1, 2, 0).numpy()
        return fitted
