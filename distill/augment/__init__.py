"""Augment a whole batch on the device.

``config`` is the config group. ``geometry``, ``color`` and ``mix`` each draw random parameters and apply them. The
draws happen on the CPU and are copied to the device, so a seed gives the same augmentation on every device.
Images are uint8 until an operation needs float32.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill.augment.color import ColorChange, draw_color
from distill.augment.config import AugmentConfig, JitterConfig
from distill.augment.geometry import ResizedCrop, Shift, draw_resized_crop, draw_shift
from distill.augment.mix import CutMix, MixUp, draw_mix
from distill.runtime.randomness import Stream

__all__ = ["AugmentConfig", "Draws", "JitterConfig", "augment", "draw", "normalize", "part_of", "view_version"]


def view_version(config: AugmentConfig) -> int:
    """Return the version of the augmentation, which stored logits and checkpoints record.

    The version increases only for configs whose pixels change. Since version 2, resized crops are bicubic and
    antialiased, and the order of the jitter operations is drawn for each sample.
    """
    return 1 if config.resized_crop is None and config.jitter is None else 2


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random parameters of the augmentation of one batch."""

    crop: Shift | ResizedCrop
    color: ColorChange | None
    mix: CutMix | MixUp | None


def draw(config: AugmentConfig, batch: int, size: int, stream: Stream) -> Draws:
    """Draw the parameters of the augmentation of ``batch`` square images of ``size`` px."""
    crop = (
        draw_resized_crop(config, batch, size, stream) if config.resized_crop else draw_shift(config, batch, stream)
    )
    color = draw_color(config, batch, stream)
    return Draws(crop, color, draw_mix(config, batch, config.output_size(size), stream))


def part_of(draws: Draws, batch: int, part: Callable[[Tensor], Tensor]) -> Draws:
    """Return the draws of the images that ``part`` selects. ``part`` selects rows of a tensor (batch, …).

    The selection must be symmetric, because mixing combines image i with image -1 - i. Draws that apply to the whole
    batch do not change.
    """

    def select(operation: Any) -> Any:
        tensors = {name: each for name, each in vars(operation).items() if isinstance(each, Tensor)}
        parts = {name: part(each) for name, each in tensors.items() if len(each) == batch}
        return dataclasses.replace(operation, **parts)

    return Draws(select(draws.crop), draws.color and select(draws.color), draws.mix and select(draws.mix))


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Return augmented images for uint8 images (B, H, W, 3): uint8, or float32 in [0, 255] after colors or MixUp."""
    out = draws.crop(images)
    if draws.color is not None:
        out = draws.color(out)
    return out if draws.mix is None else draws.mix(out)


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (x / 255 - mean) / std of images (B, H, W, 3) in [0, 255]: float32 (B, 3, H, W), channels last."""
    shift, scale = _normalization(mean, std, images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2)


@functools.lru_cache(16)
def _normalization(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return -mean / std and 1 / (255 std) on ``device``. The cache avoids a copy to the GPU in each step."""
    with torch.inference_mode(False):
        deviation = torch.tensor(std)
        return (-torch.tensor(mean) / deviation).to(device), (1 / (255.0 * deviation)).to(device)
