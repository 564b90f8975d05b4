"""CutMix and MixUp of a batch with itself in reverse order.

Teacher and student see the same mixed pixels, so distillation mixes no labels.
"""

import dataclasses

import torch
from torch import Tensor

from distill.augment.config import AugmentConfig
from distill.runtime.randomness import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix:
    """Boxes of top, bottom, left, right in pixels, filled from the partner: int64 (B, 4), or (1, 4) for all."""

    boxes: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Mix images (B, H, W, 3) of any dtype; returns the same shape and dtype."""
        if len(self.boxes) == 1:
            top, bottom, left, right = self.boxes[0].tolist()
            mixed = images.clone()
            mixed[:, top:bottom, left:right] = images[:, top:bottom, left:right].flip(0)
            return mixed
        _, height, width, _ = images.shape
        top, bottom, left, right = self.boxes.to(images.device, non_blocking=True).T[:, :, None]
        rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        inside_rows, inside_columns = (top <= rows) & (rows < bottom), (left <= columns) & (columns < right)
        inside = inside_rows[:, :, None, None] & inside_columns[:, None, :, None]
        return torch.where(inside, images.flip(0), images)

    def kept(self, batch: int, size: int) -> Tensor:
        """Return the share of each image's pixels that are its own: float64 (batch,)."""
        top, bottom, left, right = self.boxes.T
        return (1 - (bottom - top) * (right - left) / (size * size)).double().expand(batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixUp:
    """The ``weight`` of each image in its mixture; its partner has 1 - ``weight``."""

    weight: float

    def __call__(self, images: Tensor) -> Tensor:
        """Mix images (B, H, W, 3); returns float32 of that shape."""
        wide = images.float()
        return torch.lerp(wide.flip(0), wide, self.weight)

    def kept(self, batch: int, size: int) -> Tensor:
        """Return the share of each mixture that is the image itself: float64 (batch,)."""
        return torch.full((batch,), self.weight, dtype=torch.float64)


def draw_mix(config: AugmentConfig, batch: int, size: int, stream: Stream) -> CutMix | MixUp | None:
    """Draw how a batch is mixed; where both kinds are configured, each has probability 1/2.

    The boxes of CutMix have 1 - λ of the area around uniform centers, and are cut at the border (Yun et al. 2019,
    arXiv 1905.04899).
    """
    if config.mixup_alpha and (not config.cutmix_alpha or stream.word() % 2):
        return MixUp(weight=float(stream.beta(config.mixup_alpha, 1)))
    if not config.cutmix_alpha:
        return None
    count = batch if config.cutmix_box == "sample" else 1
    kept = stream.beta(config.cutmix_alpha, count)
    halves = (size * (1.0 - kept).sqrt()).long() // 2
    rows, columns = stream.integers(size, 2, count)
    edges = (rows - halves, rows + halves, columns - halves, columns + halves)
    return CutMix(boxes=torch.stack([edge.clamp(0, size) for edge in edges], dim=1))
