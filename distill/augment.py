"""Augmentation of a whole batch on the device: flip, padded crop, CutMix. Images stay uint8.

Draws are made on the CPU, so that one seed gives one augmentation on every device; only they travel.
"""

import dataclasses
import random
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class AugmentConfig(BaseModel):
    """What happens to a batch before both networks see it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    flip: Annotated[bool, Field(description="mirror each patch with probability 1/2")] = True
    pad_crop: Annotated[int, Field(ge=0, le=64, description="pixels of black padding before a crop")] = 4
    cutmix_alpha: Annotated[
        float, Field(ge=0, description="CutMix with its area from Beta(alpha, alpha); 0 switches it off")
    ] = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """One batch's augmentation. ``rows`` (B, H) and ``columns`` (B, W) index the padded images.

    ``box`` (top, bottom, left, right) in pixels is what CutMix replaces, or None.
    """

    rows: Tensor
    columns: Tensor
    box: tuple[int, int, int, int] | None


def draw(config: AugmentConfig, batch: int, size: int, generator: torch.Generator) -> Draws:
    """Draw the augmentation of ``batch`` square images of ``size`` px from a CPU generator."""
    positions = torch.arange(size)
    tops = torch.randint(0, 2 * config.pad_crop + 1, (batch, 1), generator=generator)
    lefts = torch.randint(0, 2 * config.pad_crop + 1, (batch, 1), generator=generator)
    flipped = torch.randint(0, 2, (batch, 1), generator=generator, dtype=torch.bool)
    columns = torch.where(flipped & config.flip, positions.flip(0), positions)
    box = _cutmix_box(config.cutmix_alpha, size, generator) if config.cutmix_alpha > 0 else None
    return Draws(rows=positions + tops, columns=columns + lefts, box=box)


def _cutmix_box(alpha: float, size: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """A box of 1 - λ of the area around a uniform centre, cut at the border (Yun et al., arXiv 1905.04899)."""
    seed = int(torch.randint(0, 2**62, (), generator=generator))
    kept = random.Random(seed).betavariate(alpha, alpha)  # noqa: S311 - torch's Beta takes no generator
    half = int(size * (1.0 - kept) ** 0.5) // 2
    row, column = torch.randint(0, size, (2,), generator=generator).tolist()
    top, bottom = max(row - half, 0), min(row + half, size)
    left, right = max(column - half, 0), min(column + half, size)
    return top, bottom, left, right


def augment(images: Tensor, config: AugmentConfig, draws: Draws) -> Tensor:
    """Apply ``draws`` to uint8 images (B, H, W, 3); the result has their shape, dtype and device.

    CutMix takes each image's partner from the batch in reverse order, with one box for the whole batch.
    """
    device = images.device
    pad = config.pad_crop
    padded = F.pad(images, (0, 0, pad, pad, pad, pad))
    batch = torch.arange(len(images), device=device)[:, None, None]
    rows = draws.rows.to(device, non_blocking=True)[:, :, None]
    columns = draws.columns.to(device, non_blocking=True)[:, None, :]
    out = padded[batch, rows, columns]
    if draws.box is not None:
        top, bottom, left, right = draws.box
        out[:, top:bottom, left:right] = out[:, top:bottom, left:right].flip(0)
    return out


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in channels-last memory: (x / 255 - mean) / std."""
    scale = 255.0 * torch.tensor(std, device=images.device)
    shift = 255.0 * torch.tensor(mean, device=images.device)
    return ((images.float() - shift) / scale).permute(0, 3, 1, 2)
