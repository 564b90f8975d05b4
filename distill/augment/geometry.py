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
    """Windows of padded images: ``corners`` are their tops and lefts, int64 (B, 2); ``flipped`` (B,) mirrors them.

    No more than that travels to a GPU: copies of whole index tables would make each step wait for the one before.
    """

    padding: int
    corners: Tensor
    flipped: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, size, size, 3) to the same."""
        pad, device = self.padding, images.device
        padded = F.pad(images, (0, 0, pad, pad, pad, pad)) if pad else images
        _, height, width, _ = padded.shape
        rows, columns = self.pixels(images.shape[1], device)
        first = torch.arange(len(images), device=device)[:, None, None] * height
        return padded.reshape(-1, 3)[(first + rows[:, :, None]) * width + columns[:, None, :]]

    def pixels(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and columns of the padded images to take, int64 (B, size) each, on ``device``."""
        positions = torch.arange(size, device=device)
        tops, lefts = self.corners.to(device, non_blocking=True).T[:, :, None]
        flipped = self.flipped.to(device, non_blocking=True)[:, None]
        return positions + tops, torch.where(flipped, positions.flip(0), positions) + lefts


def draw_shift(padding: int, flip: bool, batch: int, stream: Stream) -> Shift:
    """Windows as large as the images, which are padded with ``padding`` black pixels; mirrored or not."""
    tops = stream.integers(2 * padding + 1, batch)
    lefts = stream.integers(2 * padding + 1, batch)
    flipped = (stream.uniform(batch) < 0.5) & flip
    return Shift(padding=padding, corners=torch.stack([tops, lefts], dim=1), flipped=flipped)


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
