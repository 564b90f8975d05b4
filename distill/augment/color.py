"""Change the colors of a batch: jitter, grayscale, solarize. Each image has its own strength.

Images are float32 (B, H, W, 3), RGB in [0, 255]. The formulas are those of ``torchvision.transforms.v2.functional``.
"""

import dataclasses

import torch
from torch import Tensor

from distill.augment.config import AugmentConfig, JitterConfig
from distill.runtime.randomness import Stream

_GRAY = (0.2989, 0.587, 0.114)
_MAX = 255.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorChange:
    """The color changes of one batch of B images.

    ``order`` contains the operations of each image in order: 0 brightness, 1 contrast, 2 saturation, 3 hue, or -1 if
    the image is not jittered.
    """

    order: Tensor  # int64 (B, 4); (B, 0) without jitter
    brightness: Tensor  # (B,) factors around 1, also of contrast and saturation
    contrast: Tensor
    saturation: Tensor
    hue: Tensor  # (B,) in parts of the circle
    grayscale: Tensor  # bool (B,)
    solarize: Tensor  # bool (B,)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the changed images, float32, for uint8 or float32 images (B, H, W, 3) in [0, 255]."""
        images = self._jittered(images.to(torch.float32, copy=True))
        images = torch.where(_column(self.grayscale, images), _gray(images), images)
        inverted = torch.where(images >= 128, _MAX - images, images)
        return torch.where(_column(self.solarize, images), inverted, images)

    def _jittered(self, images: Tensor) -> Tensor:
        """Jitter float32 images (B, H, W, 3) in place. Images with the same next operation change together."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        for position in self.order.T:
            for number, (operation, strength) in enumerate(zip(_OPERATIONS, strengths, strict=True)):
                samples = (position == number).nonzero()[:, 0]
                if len(samples):
                    rows = samples.to(images.device, non_blocking=True)
                    images[rows] = operation(images[rows], _column(strength[samples], images))
        return images


def draw_color(config: AugmentConfig, batch: int, stream: Stream) -> ColorChange | None:
    """Draw the color changes of ``batch`` images. Returns None if the config changes no colors."""
    if config.jitter is None and not config.grayscale and not config.solarize:
        return None
    jitter = config.jitter or JitterConfig()
    touched = stream.uniform(batch) < jitter.p

    def factor(strength: float) -> Tensor:
        low, high = max(0.0, 1.0 - strength), 1.0 + strength
        return torch.where(touched, low + (high - low) * stream.uniform(batch), 1.0)

    order = torch.empty(batch, 0, dtype=torch.int64)
    if config.jitter:
        order = torch.where(touched[:, None], stream.uniform(batch, 4).argsort(dim=1), -1)
    return ColorChange(
        order=order,
        brightness=factor(jitter.brightness),
        contrast=factor(jitter.contrast),
        saturation=factor(jitter.saturation),
        hue=torch.where(touched, jitter.hue * (2 * stream.uniform(batch) - 1), 0.0),
        grayscale=stream.uniform(batch) < config.grayscale,
        solarize=stream.uniform(batch) < config.solarize,
    )


def _column(values: Tensor, images: Tensor) -> Tensor:
    """Return a tensor (B,) as (B, 1, 1, 1) on the device of ``images``. Floats get the dtype of ``images``."""
    kind = values.dtype if values.dtype == torch.bool else images.dtype
    return values.to(images.device, kind, non_blocking=True)[:, None, None, None]


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=3)
    return _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, _MAX)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, _MAX)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _gray(images).mean(dim=(1, 2), keepdim=True), factor)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _gray(images), factor)


def _hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of ``images`` by ``turn`` (1 is the full circle). In HSV, value and saturation do not change."""
    value, lowest = images.amax(dim=3), images.amin(dim=3)
    span = value - lowest
    red, green, blue = images.unbind(dim=3)
    safe = torch.where(span > 0, span, 1.0)
    sector = torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    sector = torch.where(value == red, (green - blue) / safe, sector)
    turned = sector + 6 * turn[..., 0]

    def channel(offset: int) -> Tensor:
        """Return value - span · max(0, min(k, 4 - k, 1)) with k = (offset + hue) mod 6."""
        k = (offset + turned) % 6
        return value - span * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=3)


_OPERATIONS = (_brightness, _contrast, _saturation, _hue)  # ``ColorChange.order`` contains indices of this tuple
