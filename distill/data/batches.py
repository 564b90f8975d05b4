"""A view of a set: which samples a step sees and how they are augmented, as a function of a seed."""

import dataclasses
from typing import Any, Protocol

import torch
from torch import Tensor

from distill.augment import AugmentConfig, Draws, augment, draw, part_of, view_version
from distill.data.sampler import Ordering
from distill.runtime.distributed import ALONE, Ranks
from distill.runtime.randomness import Stream


class Source(Protocol):
    """Square uint8 images in the order of a run."""

    @property
    def order(self) -> Ordering:
        """Which samples each step has."""

    @property
    def size(self) -> int:
        """Pixels a side."""

    @property
    def device(self) -> torch.device:
        """Where its images come."""

    @property
    def ranks(self) -> Ranks:
        """Whose rows of each batch it gives."""

    def images(self, step: int) -> Tensor:
        """Images of this rank's samples of ``order.batch(step)``: uint8 (B, size, size, 3) on the run's device."""

    def close(self) -> None:
        """End whatever reads for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resident:
    """A source whose ``samples``, uint8 (n, size, size, 3), lie on a device or in memory."""

    samples: Tensor
    order: Ordering
    device: torch.device
    ranks: Ranks = ALONE

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.samples.shape[1]

    def images(self, step: int) -> Tensor:
        """As ``Source.images``."""
        indices = self.ranks.part(self.order.batch(step)).to(self.samples.device, non_blocking=True)
        return self.samples[indices].to(self.device, non_blocking=True)

    def close(self) -> None:
        """As ``Source.close``."""


def fits_gpu(size: int, device: torch.device) -> bool:
    """Whether ``device`` is a GPU with room for samples of ``size`` bytes in half of its free memory."""
    return device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] // 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """A step's augmentation and the ``images`` (B, H, W, 3) it gave, of this rank's rows.

    Images are uint8, or float32 in [0, 255] where the augmentation needs it.
    """

    step: int
    draws: Draws
    images: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """Every step's batch of a source, augmented; the batches of the first ``period`` steps come again after them."""

    source: Source
    augment: AugmentConfig
    seed: int
    period: int

    @property
    def batch_size(self) -> int:
        """Samples a step, on all ranks."""
        return self.source.order.batch_size

    @property
    def ranks(self) -> Ranks:
        """Among which each batch is shared out."""
        return self.source.ranks

    @property
    def rows(self) -> int:
        """Samples a step on this rank."""
        return int(self.ranks.mask(self.batch_size).sum())

    @property
    def size(self) -> int:
        """Pixels a side of what comes out."""
        return self.augment.output_size(self.source.size)

    def batch(self, step: int) -> Batch:
        """The batch of ``step``, counted from 0; its own ``step`` is below ``period``."""
        step %= self.period
        draws = draw(self.augment, self.batch_size, self.source.size, Stream(self.seed, "augment", step))
        draws = part_of(draws, self.batch_size, self.ranks.part)
        images = augment(self.source.images(step), draws)
        return Batch(step=step, draws=draws, images=images)

    def indices(self, step: int) -> Tensor:
        """Of the samples in the batch of ``step``, on all ranks: int64 (B)."""
        return self.source.order.batch(step % self.period)

    def example(self) -> Tensor:
        """Zeros as networks get this rank's images: float32 (B, 3, H, W) in channels-last memory."""
        shape = (self.rows, 3, self.size, self.size)
        return torch.zeros(shape, device=self.source.device).contiguous(memory_format=torch.channels_last)

    def describe(self) -> dict[str, Any]:
        """All that decides a batch but the samples themselves, as plain JSON values."""
        return {
            "version": view_version(self.augment),
            "seed": self.seed,
            "order": self.source.order.describe(),
            "augment": self.augment.model_dump(mode="json"),
        }
