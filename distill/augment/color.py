"""Colours of a batch, each image with its own strength: jitter, grayscale, solarize.

Images are float32 (B, H, W, 3), RGB in [0, 255]. Formulas as torchvision's (torchvision.transforms.v2.functional).
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from distill.augment.config import JitterConfig
from distill.runtime.randomness import Stream

_GRAY = (0.2989, 0.587, 0.114)
_TOP = 255.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colour:
    """One batch's colours. Each tensor but ``order`` is (B,): factors around 1, ``hue`` in turns, the last two bool.

    ``order`` (B, 4) holds each sample's operations in the order they act, as 0 brightness, 1 contrast, 2 saturation,
    3 hue; a sample that is not jittered has -1. Without jitter it is (B, 0).
    """

    order: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    grayscale: Tensor
    solarize: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float32 (B, H, W, 3) in [0, 255] to float32 of that shape."""
        images = self._jittered(images.to(torch.float32, copy=True))
        images = torch.where(_column(self.grayscale, images), _gray(images), images)
        inverted = torch.where(images >= 128, _TOP - images, images)
        return torch.where(_column(self.solarize, images), inverted, images)

    def _jittered(self, images: Tensor) -> Tensor:
        """Jitter ``images``, float32 (B, H, W, 3), in place.

        The samples that share an operation at one place of the order are taken out, changed together and put back, so
        that each operation is computed once a sample, whatever the orders.
        """
        operations: tuple[tuple[Callable[[Tensor, Tensor], Tensor], Tensor], ...] = (
            (_brightness, self.brightness),
            (_contrast, self.contrast),
            (_saturation, self.saturation),
            (_hue, self.hue),
        )
        for at_place in self.order.T:
            for number, (operation, strength) in enumerate(operations):
                here = (at_place == number).nonzero()[:, 0]
                if len(here):
                    rows = here.to(images.device, non_blocking=True)
                    images[rows] = operation(images[rows], _column(strength[here], images))
        return images


def draw_colour(
    config: JitterConfig | None, grayscale: float, solarize: float, batch: int, stream: Stream
) -> Colour | None:
    """Colours of a batch of ``batch`` images, or None where nothing is asked."""
    if config is None and not grayscale and not solarize:
        return None
    jitter = config or JitterConfig()
    touched = stream.uniform(batch) < jitter.p

    def factor(strength: float) -> Tensor:
        low, high = max(0.0, 1.0 - strength), 1.0 + strength
        return torch.where(touched, low + (high - low) * stream.uniform(batch), 1.0)

    return Colour(
        order=_orders(touched, stream) if config else torch.empty(batch, 0, dtype=torch.int64),
        brightness=factor(jitter.brightness),
        contrast=factor(jitter.contrast),
        saturation=factor(jitter.saturation),
        hue=torch.where(touched, jitter.hue * (2 * stream.uniform(batch) - 1), 0.0),
        grayscale=stream.uniform(batch) < grayscale,
        solarize=stream.uniform(batch) < solarize,
    )


def _orders(touched: Tensor, stream: Stream) -> Tensor:
    """A permutation of the four operations for each ``touched`` sample, -1 for the others: int64 (B, 4)."""
    return torch.where(touched[:, None], stream.uniform(len(touched), 4).argsort(dim=1), -1)


def _column(values: Tensor, images: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1) beside ``images``."""
    kind = values.dtype if values.dtype == torch.bool else images.dtype
    return values.to(images.device, kind, non_blocking=True)[:, None, None, None]


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=3)
    return _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, _TOP)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, _TOP)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _gray(images).mean(dim=(1, 2), keepdim=True), factor)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _gray(images), factor)


def _hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue in HSV by ``turn`` of a full circle; value and saturation stay."""
    value, lowest = images.amax(dim=3), images.amin(dim=3)
    span = value - lowest
    red, green, blue = images.unbind(dim=3)
    safe = torch.where(span > 0, span, 1.0)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sector + 6 * turn[..., 0]

    def channel(offset: int) -> Tensor:
        """v - s · max(0, min(k, 4 - k, 1)) with k = (offset + hue) mod 6."""
        k = (offset + turned) % 6
        return value - span * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=3)
