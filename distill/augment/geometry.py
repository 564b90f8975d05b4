"""Crop and mirror a batch of images (B, H, W, 3) on any device. The draws happen on the CPU."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.augment.config import AugmentConfig
from distill.runtime.randomness import Stream

_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift:
    """One window of each padded image. A window is as large as an image before padding.

    Only ``corners`` and ``flipped`` are copied to a GPU, because copies of whole index tables would delay each step.
    """

    padding: int  # pixels on each side
    corners: Tensor  # int64 (B, 2), top and left in pixels
    flipped: Tensor  # bool (B,), which images are mirrored

    def __call__(self, images: Tensor) -> Tensor:
        """Return the windows of uint8 images (B, size, size, 3), with the same shape and dtype."""
        pad, device = self.padding, images.device
        padded = F.pad(images, (0, 0, pad, pad, pad, pad)) if pad else images
        _, height, width, _ = padded.shape
        rows, columns = self.pixels(images.shape[1], device)
        start = torch.arange(len(images), device=device)[:, None, None] * height
        return padded.reshape(-1, 3)[(start + rows[:, :, None]) * width + columns[:, None, :]]

    def pixels(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the row indices and the column indices of each window in its padded image, both int64 (B, size)."""
        positions = torch.arange(size, device=device)
        tops, lefts = self.corners.to(device, non_blocking=True).T[:, :, None]
        flipped = self.flipped.to(device, non_blocking=True)[:, None]
        return positions + tops, torch.where(flipped, positions.flip(0), positions) + lefts


def draw_shift(config: AugmentConfig, batch: int, stream: Stream) -> Shift:
    """Draw one window of each padded image. With ``flip``, each window is mirrored with probability 1/2."""
    tops = stream.integers(2 * config.pad_crop + 1, batch)
    lefts = stream.integers(2 * config.pad_crop + 1, batch)
    flipped = (stream.uniform(batch) < 0.5) & config.flip
    return Shift(padding=config.pad_crop, corners=torch.stack([tops, lefts], dim=1), flipped=flipped)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """One box of each image. The box is cut out and resized to ``size`` px."""

    boxes: Tensor  # (B, 4), top, left, height and width in pixels
    flipped: Tensor  # bool (B,), which images are mirrored
    size: int

    def __call__(self, images: Tensor) -> Tensor:
        """Resize the boxes of uint8 images (B, H, W, 3) to uint8 (B, size, size, 3): bicubic, antialiased.

        As in Pillow, columns are resized first, then rows, and both results are rounded and clipped to 0 … 255.
        """
        batch, height, width, channels = images.shape
        device = images.device
        top, left, tall, wide = self.boxes.to(device, torch.float32, non_blocking=True).T
        across = cubic_weights(left, wide, width, self.size)  # B size W
        flipped = self.flipped.to(device, non_blocking=True)[:, None, None]
        across = torch.where(flipped, across.flip(1), across)
        down = cubic_weights(top, tall, height, self.size)  # B size H
        planes = images.permute(0, 3, 1, 2).float().reshape(batch, channels * height, width)
        narrowed = (planes @ across.mT).clamp_(0, 255).round_().reshape(batch, channels, height, self.size)
        rows = narrowed.permute(0, 2, 3, 1).reshape(batch, height, self.size * channels)
        resized = (down @ rows).clamp_(0, 255).round_().to(torch.uint8)
        return resized.reshape(batch, self.size, self.size, channels)


def cubic_weights(start: Tensor, length: Tensor, pixels: int, out: int) -> Tensor:
    """Return weights that resize a part of a row of ``pixels`` pixels to ``out`` pixels: float32 (B, out, pixels).

    ``start`` and ``length``, whole numbers (B,), are the first pixel and the number of pixels of the part. Pixels
    outside of the part have the weight 0. The weights of each output pixel sum to 1. The kernel is the cubic of Keys
    (1981) with a = -0.5. If the part shrinks, the kernel is wider, as in Pillow and torchvision (``antialias=True``).
    """
    start, length = start[:, None, None], length[:, None, None]
    centers = (torch.arange(out, device=start.device) + 0.5)[:, None] * (length / out)  # B out 1
    positions = torch.arange(pixels, device=start.device) - start  # B 1 pixels
    x = ((positions + 0.5 - centers) / (length / out).clamp(min=1)).abs()
    inner, outer = x.clamp(max=1), x.clamp(1, 2)  # each piece of the kernel is 0 in the range of the other
    weights = (1.5 * inner - 2.5) * inner.square() + 1 + ((2.5 - 0.5 * outer) * outer - 4) * outer + 2
    weights = weights * ((positions >= 0) & (positions < length))
    return weights / weights.sum(dim=2, keepdim=True)


def draw_resized_crop(config: AugmentConfig, batch: int, size: int, stream: Stream) -> ResizedCrop:
    """Draw one box of each image, with a random area and a random aspect ratio from 3/4 to 4/3.

    ``config.resized_crop`` limits the share of the image area. If ten drawn boxes do not fit into the image, the box
    is the whole image. This is RandomResizedCrop of torchvision (Szegedy et al. 2015, arXiv 1409.4842).
    """
    smallest, largest = config.resized_crop or (1.0, 1.0)
    areas = size * size * (smallest + (largest - smallest) * stream.uniform(batch, _ATTEMPTS))
    low, high = math.log(3 / 4), math.log(4 / 3)
    aspects = torch.exp(low + (high - low) * stream.uniform(batch, _ATTEMPTS))
    widths, heights = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (widths >= 1) & (widths <= size) & (heights >= 1) & (heights <= size)
    attempt = fits.int().argmax(dim=1, keepdim=True)  # the first that fits, or 0
    found = fits.any(dim=1)
    w, h = (torch.where(found, sides.gather(1, attempt)[:, 0], float(size)) for sides in (widths, heights))
    corner = stream.uniform(batch, 2)
    top, left = (corner[:, 0] * (size - h + 1)).floor(), (corner[:, 1] * (size - w + 1)).floor()
    flipped = (stream.uniform(batch) < 0.5) & config.flip
    boxes = torch.stack([top, left, h, w], dim=1)
    return ResizedCrop(boxes=boxes, flipped=flipped, size=config.output_size(size))
