"""CutMix and MixUp: combine a batch with the same batch in reverse order, so image -1 - i is the partner of image i.

Distillation mixes no labels, because teacher and student process the same mixed pixels.
"""

import dataclasses

import torch
from torch import Tensor

from distill.augment.config import AugmentConfig
from distill.runtime.randomness import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix:
    """Boxes in which the pixels of an image are replaced by pixels of the partner image."""

    boxes: Tensor  # int64 (B, 4), top, bottom, left and right in pixels; (1, 4) is one box for all images

    def __call__(self, images: Tensor) -> Tensor:
        """Return mixed images for images (B, H, W, 3) of any dtype, with the same shape and dtype."""
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
        """Return for each mixed image the share of pixels from the image itself: float64 (batch,)."""
        top, bottom, left, right = self.boxes.T
        return (1 - (bottom - top) * (right - left) / (size * size)).double().expand(batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixUp:
    """The sum of ``weight`` × image and (1 - ``weight``) × partner image, for each image of a batch."""

    weight: float

    def __call__(self, images: Tensor) -> Tensor:
        """Return mixed images for images (B, H, W, 3), as float32 with the same shape."""
        wide = images.float()
        return torch.lerp(wide.flip(0), wide, self.weight)

    def kept(self, batch: int, size: int) -> Tensor:
        """Return for each mixed image the weight of the image itself: float64 (batch,)."""
        return torch.full((batch,), self.weight, dtype=torch.float64)


def draw_mix(config: AugmentConfig, batch: int, size: int, stream: Stream) -> CutMix | MixUp | None:
    """Draw the parameters of CutMix or MixUp for a batch. If the config has both, each has the probability 1/2.

    A box of CutMix has the share 1 - λ of the image area, with λ from a Beta distribution. The center is uniform, and
    the box is cut at the border of the image (Yun et al. 2019, arXiv 1905.04899).
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
