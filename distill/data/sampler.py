"""The order in which a run sees its samples: a function of seed and step, so that any step can be the first."""

import functools
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill.runtime.distributed import ALONE, Ranks
from distill.runtime.randomness import Stream


class Ordering(Protocol):
    """Which samples each step has. Every epoch is one exact permutation, and batches run across the border of two."""

    n: int
    batch_size: int

    def batch(self, step: int) -> Tensor:
        """Indices of the samples of batch ``step``, counted from 0: int64 of shape (batch_size,)."""

    def describe(self) -> dict[str, int]:
        """All that decides the order, but the samples."""


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


Place = tuple[int, int]
"""An epoch, and a window of it."""


class WindowOrder:
    """An order for shards of ``sizes`` patches that are read one after another, ``window`` of them at a time.

    It is shuffled twice, shards among each other and patches within a window, instead of once. A window's rows are
    the patches of its shards, one shard behind the other.
    """

    def __init__(self, sizes: list[int], batch_size: int, seed: int, window: int) -> None:
        self.n = sum(sizes)
        self.batch_size = batch_size
        self._seed, self._window = seed, window
        self._sizes = np.array(sizes)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._windows = -(-len(sizes) // window)
        self._epoch = functools.lru_cache(2)(self._shuffle_shards)
        self._rows = functools.lru_cache(4)(self._shuffle_rows)

    def batch(self, step: int) -> Tensor:
        """As ``Ordering.batch``."""
        return torch.cat([self._indices(place)[rows] for place, rows in self.pieces(step)])

    def describe(self) -> dict[str, int]:
        """As ``Ordering.describe``."""
        return {"n": self.n, "batch_size": self.batch_size, "seed": self._seed, "window": self._window}

    def pieces(self, step: int, ranks: Ranks = ALONE) -> list[tuple[Place, Tensor]]:
        """The windows that batch ``step`` is made of, in order, with the rows that this rank takes of each: int64."""
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        mine = ranks.mask(self.batch_size)
        pieces = []
        for epoch in range(start // self.n, (stop - 1) // self.n + 1):
            _, edges = self._epoch(epoch)
            begin, end = max(start - epoch * self.n, 0), min(stop - epoch * self.n, self.n)
            first = int(np.searchsorted(edges, begin, side="right")) - 1
            last = int(np.searchsorted(edges, end, side="left"))
            for window in range(first, last):
                edge = int(edges[window])
                rows = self._rows((epoch, window))[max(begin - edge, 0) : end - edge]
                here = mine[epoch * self.n + max(begin, edge) - start :][: len(rows)]
                pieces.append(((epoch, window), rows[here]))
        return pieces

    def wanted(self, place: Place, ranks: Ranks) -> Tensor:
        """Which rows of a window are this rank's in any batch: bool (rows)."""
        rows = self._rows(place)
        first = place[0] * self.n + int(self._epoch(place[0])[1][place[1]])
        wanted = torch.empty(len(rows), dtype=torch.bool)
        wanted[rows] = ranks.mask(self.batch_size)[(first + torch.arange(len(rows))) % self.batch_size]
        return wanted

    def shards(self, place: Place) -> list[int]:
        """Numbers of the shards in a window."""
        return [int(shard) for shard in self._epoch(place[0])[0][place[1]]]

    def after(self, place: Place) -> Place:
        """The window behind ``place``."""
        epoch, window = place
        return (epoch, window + 1) if window + 1 < self._windows else (epoch + 1, 0)

    def _indices(self, place: Place) -> Tensor:
        spans = [np.arange(self._sizes[shard]) + self._firsts[shard] for shard in self.shards(place)]
        return torch.from_numpy(np.concatenate(spans))

    def _shuffle_shards(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """An epoch's windows, shards each, and how many samples come before each of them and in all of them."""
        order = Stream(self._seed, "shards", epoch).permutation(len(self._sizes)).numpy()
        windows = [order[first : first + self._window] for first in range(0, len(order), self._window)]
        return windows, np.cumsum([0, *(self._sizes[shards].sum() for shards in windows)])

    def _shuffle_rows(self, place: Place) -> Tensor:
        count = int(self._sizes[self.shards(place)].sum())
        return Stream(self._seed, "window", place[0] * self._windows + place[1]).permutation(count)
