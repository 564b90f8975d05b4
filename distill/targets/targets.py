"""What a student is held against at each step: a live teacher's logits, stored ones, or labels."""

import dataclasses
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.data.sampler import Ordering
from distill.runtime.compile import Frozen
from distill.runtime.distributed import ALONE, Ranks
from distill.targets.stored_logits import StoredLogits


class Targets(Protocol):
    """Gives this rank's rows of each batch their target, (B, classes), to compare the student's logits with."""

    def __call__(self, batch: Batch, x: Tensor) -> Tensor:
        """The target of ``batch``, whose normalised images are ``x``, float32 (B, 3, H, W)."""

    def require_unchanged(self) -> None:
        """Prove that what gives the targets did not change during the run; raises DistillError if it did."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveTeacher:
    """Logits of a frozen network on the very pixels the student sees."""

    network: Frozen

    def __call__(self, batch: Batch, x: Tensor) -> Tensor:
        """Logits (B, classes) in the network's precision."""
        return self.network(x)

    def require_unchanged(self) -> None:
        """As ``Frozen.require_unchanged``."""
        self.network.require_unchanged()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RememberedTeacher:
    """A live teacher that is asked about each view once, and remembers its logits while the program runs."""

    live: LiveTeacher
    held: dict[int, Tensor] = dataclasses.field(default_factory=dict)

    def __call__(self, batch: Batch, x: Tensor) -> Tensor:
        """Logits (B, classes) in the network's precision."""
        if batch.step not in self.held:
            self.held[batch.step] = self.live(batch, x)
        return self.held[batch.step]

    def require_unchanged(self) -> None:
        """As ``Frozen.require_unchanged``."""
        self.live.require_unchanged()


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTeacher:
    """Logits that a teacher gave on this view before."""

    logits: StoredLogits
    device: torch.device
    ranks: Ranks = ALONE

    def __call__(self, batch: Batch, x: Tensor) -> Tensor:
        """Logits (B, classes), float16."""
        return self.ranks.part(self.logits.of_step(batch.step)).to(self.device, non_blocking=True)

    def require_unchanged(self) -> None:
        """As ``StoredLogits.require_unchanged``."""
        self.logits.require_unchanged()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """Class probabilities from labels (n,), smoothed, and mixed as the pixels are."""

    labels: Tensor
    order: Ordering
    num_classes: int
    smoothing: float
    ranks: Ranks = ALONE

    def __call__(self, batch: Batch, x: Tensor) -> Tensor:
        """Probabilities float32 (B, classes): 1 - s on the label, s / classes on every class."""
        rows = self.ranks.part(self.order.batch(batch.step))
        own = F.one_hot(self.labels[rows], self.num_classes).float()
        target = own * (1 - self.smoothing) + self.smoothing / self.num_classes
        mix = batch.draws.mix
        if mix is not None:
            kept = mix.kept(len(own), batch.images.shape[1]).float()[:, None]
            target = kept * target + (1 - kept) * target.flip(0)
        return target.to(x.device, non_blocking=True)

    def require_unchanged(self) -> None:
        """Labels are no network."""
