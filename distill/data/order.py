"""The order in which a run sees its samples: a function of seed and step, so that any step can be the first."""

import torch
from torch import Tensor

from distill.randomness import Stream


class Order:
    """The order in which a run sees its patches: one exact permutation an epoch, end to end.

    Batches run across the border of two epochs, so that all have one size and no patch is left out.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n = n
        self.batch_size = batch_size
        self._seed = seed
        self._epochs: dict[int, Tensor] = {}

    def batch(self, step: int) -> Tensor:
        """Indices of the patches of batch ``step``, counted from 0: int64 of shape (batch_size,)."""
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        first, last = start // self.n, (stop - 1) // self.n
        parts = []
        for epoch in range(first, last + 1):
            base = epoch * self.n
            parts.append(self._permutation(epoch)[max(start - base, 0) : min(stop - base, self.n)])
        for old in [epoch for epoch in self._epochs if epoch < last]:
            del self._epochs[old]
        return torch.cat(parts)

    def describe(self) -> dict[str, int]:
        """All that decides the order."""
        return {"n": self.n, "batch_size": self.batch_size, "seed": self._seed}

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            self._epochs[epoch] = Stream(self._seed, "epoch", epoch).permutation(self.n)
        return self._epochs[epoch]
