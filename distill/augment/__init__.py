"""Augmentation of a whole batch on the device. Rooms: ``config``, ``geometry``, ``colour``, ``mix``.

Draws are made on the CPU, so that one seed gives one augmentation on every device; only they travel. Images stay
uint8 until something needs more.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill.augment.color import Colour, draw_colour
from distill.augment.config import AugmentConfig, JitterConfig
from distill.augment.geometry import ResizedCrop, Shift, draw_resized_crop, draw_shift
from distill.augment.mix import Mix, draw_mix
from distill.runtime.randomness import Stream

__all__ = ["AugmentConfig", "Draws", "JitterConfig", "augment", "draw", "normalise", "part_of", "view_version"]


def view_version(config: AugmentConfig) -> int:
    """The version of the pixels that ``config`` and a seed give: stored logits and checkpoints belong to one.

    It goes up, for the configs concerned alone, whenever they would give other pixels. 2: resized crops are bicubic
    and antialiased, and each sample is jittered in an order of its own.
    """
    return 1 if config.resized_crop is None and config.jitter is None else 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """One batch's augmentation."""

    crop: Shift | ResizedCrop
    colour: Colour | None
    mix: Mix | None


def draw(config: AugmentConfig, batch: int, size: int, stream: Stream) -> Draws:
    """Draw the augmentation of ``batch`` square images of ``size`` px."""
    out = config.output_size(size)
    crop: Shift | ResizedCrop
    if config.resized_crop is None:
        crop = draw_shift(config.pad_crop, config.flip, batch, stream)
    else:
        crop = draw_resized_crop(config.resized_crop, config.flip, batch, size, out, stream)
    return Draws(
        crop=crop,
        colour=draw_colour(config.jitter, config.grayscale, config.solarize, batch, stream),
        mix=draw_mix(config.cutmix_alpha, config.cutmix_box == "sample", config.mixup_alpha, batch, out, stream),
    )


def part_of(draws: Draws, batch: int, part: Callable[[Tensor], Tensor]) -> Draws:
    """``draws`` of ``batch`` images for some of them, which ``part`` takes out of (batch, …).

    Mixing asks that they are the same in reverse. What serves the whole batch stays.
    """

    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return part(value) if len(value) == batch else value
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        return dataclasses.replace(value, **{f.name: of(getattr(value, f.name)) for f in dataclasses.fields(value)})

    parts: Draws = of(draws)
    return parts


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Apply ``draws`` to uint8 images (B, H, W, 3): uint8, or float32 in [0, 255] where an operation needs it.

    Mixing takes each image's partner from the batch in reverse order.
    """
    out = draws.crop(images)
    if draws.colour is not None:
        out = draws.colour(out)
    return out if draws.mix is None else draws.mix(out)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(B, H, W, 3) in [0, 255] to float32 (B, 3, H, W) in channels-last memory: (x / 255 - mean) / std."""
    shift, scale = _constants(mean, std, images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2)


@functools.lru_cache(16)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Made once: a copy to a GPU would wait for it at every step."""
    with torch.inference_mode(False):
        deviation = torch.tensor(std)
        return (-torch.tensor(mean) / deviation).to(device), (1 / (255.0 * deviation)).to(device)
