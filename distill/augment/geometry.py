"""Crops and flips of a batch. Draws come from the CPU, images (B, H, W, 3) lie anywhere."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.randomness import Stream

_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift:
    """Pixels to take of padded images: ``rows`` (B, H) and ``columns`` (B, W), int64."""

    padding: int
    rows: Tensor
    columns: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to the same."""
        pad, device = self.padding, images.device
        padded = F.pad(images, (0, 0, pad, pad, pad, pad)) if pad else images
        _, height, width, _ = padded.shape
        rows = self.rows.to(device, non_blocking=True)[:, :, None]
        columns = self.columns.to(device, non_blocking=True)[:, None, :]
        first = torch.arange(len(images), device=device)[:, None, None] * height
        pixels = padded.reshape(-1, 3)
        return pixels[(first + rows) * width + columns]


def draw_shift(padding: int, flip: bool, batch: int, size: int, stream: Stream) -> Shift:
    """A crop of ``size`` pixels out of images padded with ``padding`` black ones, mirrored or not."""
    positions = torch.arange(size)
    tops = stream.integers(2 * padding + 1, batch, 1)
    lefts = stream.integers(2 * padding + 1, batch, 1)
    flipped = stream.uniform(batch, 1) < 0.5
    columns = torch.where(flipped & flip, positions.flip(0), positions)
    return Shift(padding=padding, rows=positions + tops, columns=columns + lefts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """Boxes (B, 4) of top, left, height, width in pixels to resize to ``size``; ``flipped`` (B,) mirrors."""

    boxes: Tensor
    flipped: Tensor
    size: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float32 (B, size, size, 3) in [0, 255], bilinear, without antialiasing.

        A crop is rarely shrunk by more than the seventh between 256 and 224 pixels, which needs none.
        """
        _, height, width, _ = images.shape
        top, left, h, w = self.boxes.to(images.device, torch.float32, non_blocking=True).T[:, :, None]
        centres = (torch.arange(self.size, device=images.device) + 0.5) / self.size
        mirrored = self.flipped.to(images.device, non_blocking=True)[:, None]
        ys = 2 * (top + centres * h) / height - 1  # B size
        xs = 2 * (left + torch.where(mirrored, 1 - centres, centres) * w) / width - 1
        shape = (len(images), self.size, self.size)
        grid = torch.stack([xs[:, None, :].expand(shape), ys[:, :, None].expand(shape)], dim=-1)
        planes = images.permute(0, 3, 1, 2).float()
        crops = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return crops.permute(0, 2, 3, 1).contiguous()


def draw_resized_crop(
    area: tuple[float, float], flip: bool, batch: int, size: int, out: int, stream: Stream
) -> ResizedCrop:
    """Boxes with ``area`` of the image and an aspect of 3/4 to 4/3, the whole image where ten draws do not fit.

    As RandomResizedCrop of torchvision (Szegedy et al. 2015, arXiv 1409.4842).
    """
    areas = size * size * (area[0] + (area[1] - area[0]) * stream.uniform(batch, _ATTEMPTS))
    low, high = (math.log(aspect) for aspect in _ASPECT)
    aspects = torch.exp(low + (high - low) * stream.uniform(batch, _ATTEMPTS))
    widths, heights = (areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()
    fits = (widths >= 1) & (widths <= size) & (heights >= 1) & (heights <= size)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits, or 0
    found = fits.any(dim=1)
    w, h = (torch.where(found, sides.gather(1, first)[:, 0], float(size)) for sides in (widths, heights))
    corner = stream.uniform(batch, 2)
    top, left = (corner[:, 0] * (size - h + 1)).floor(), (corner[:, 1] * (size - w + 1)).floor()
    flipped = (stream.uniform(batch) < 0.5) & flip
    return ResizedCrop(boxes=torch.stack([top, left, h, w], dim=1), flipped=flipped, size=out)
