"""Create the batches of a run. A seed determines the samples of each step and the augmentation of the samples."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from distill.augment import AugmentConfig, Draws, augment, draw, part_of, view_version
from distill.data.sampler import Order, WindowOrder
from distill.data.stream import Streamed
from distill.runtime.device import fits_gpu
from distill.runtime.distributed import Ranks, RunContext
from distill.runtime.randomness import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resident:
    """Training images in memory or on the device. ``samples`` are their pixels: uint8 (n, size, size, 3)."""

    samples: Tensor
    order: Order | WindowOrder
    context: RunContext

    @property
    def size(self) -> int:
        """The width of an image in pixels, which is also the height."""
        return self.samples.shape[1]

    def images(self, step: int) -> Tensor:
        """Return the images of ``step`` that belong to this rank: uint8 (B, size, size, 3) on the run's device."""
        indices = self.context.ranks.take_rows(self.order.batch(step)).to(self.samples.device, non_blocking=True)
        return self.samples[indices].to(self.context.device, non_blocking=True)


Source = Resident | Streamed


def resident(samples: Tensor, batch_size: int, seed: int, context: RunContext) -> Resident:
    """Return a source of ``samples``, uint8 (n, size, size, 3), on the GPU if they fit into its memory."""
    samples = samples.to(context.device) if fits_gpu(samples.nbytes, context.device) else samples
    return Resident(samples=samples, order=Order(len(samples), batch_size, seed), context=context)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The part of a step's batch that belongs to this rank. ``images`` (B, H, W, 3) were augmented with ``draws``.

    ``images`` are uint8, or float32 in [0, 255] if an augmentation computes in float32.
    """

    step: int
    draws: Draws
    images: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """The augmented batches of ``source``. The batches repeat after ``period`` steps."""

    source: Source
    augment: AugmentConfig
    seed: int
    period: int

    @property
    def batch_size(self) -> int:
        """The number of samples of one step on all ranks together."""
        return self.source.order.batch_size

    @property
    def ranks(self) -> Ranks:
        """The ranks that share each batch."""
        return self.source.context.ranks

    @property
    def rows(self) -> int:
        """The number of samples of one step on this rank."""
        return int(self.ranks.row_mask(self.batch_size).sum())

    @property
    def size(self) -> int:
        """The width of an augmented image in pixels, which is also the height."""
        return self.augment.output_size(self.source.size)

    def batch(self, step: int) -> Batch:
        """Return this rank's part of the batch of ``step``, counted from 0. ``Batch.step`` is ``step % period``."""
        step %= self.period
        draws = draw(self.augment, self.batch_size, self.source.size, Stream(self.seed, "augment", step))
        draws = part_of(draws, self.batch_size, self.ranks.take_rows)
        return Batch(step=step, draws=draws, images=augment(self.source.images(step), draws))

    def indices(self, step: int) -> Tensor:
        """Return the indices of the samples of ``step`` on all ranks: int64 (B,)."""
        return self.source.order.batch(step % self.period)

    def example(self) -> Tensor:
        """Return zeros with the shape of a network's input: float32 (B, 3, H, W) in channels-last memory."""
        shape = (self.rows, 3, self.size, self.size)
        return torch.zeros(shape, device=self.source.context.device).contiguous(memory_format=torch.channels_last)

    def describe(self) -> dict[str, Any]:
        """Return the settings that select and augment the samples of each batch, as JSON values."""
        order, augmentation = self.source.order.describe(), self.augment.model_dump(mode="json")
        version = view_version(self.augment)
        return {"version": version, "seed": self.seed, "order": order, "augment": augmentation}
