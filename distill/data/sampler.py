"""The order of the samples of a run. Seed and step determine the samples, so a run can start at any step."""

import functools

import numpy as np
import torch
from torch import Tensor

from distill.runtime.distributed import SINGLE_PROCESS, Ranks
from distill.runtime.randomness import Stream


class Order:
    """The order of ``n`` samples. Every epoch is another permutation of all samples.

    The epochs are one sequence, which is cut into batches. So a batch may contain samples of two epochs.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n = n
        self.batch_size = batch_size
        self._seed = seed
        self._permutation = functools.lru_cache(2)(lambda epoch: Stream(seed, "epoch", epoch).permutation(n))

    def batch(self, step: int) -> Tensor:
        """Return the indices of the samples of ``step``, counted from 0: int64 (batch_size,)."""
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        for epoch in range(start // self.n, (stop - 1) // self.n + 1):
            base = epoch * self.n
            parts.append(self._permutation(epoch)[max(start - base, 0) : min(stop - base, self.n)])
        return torch.cat(parts)

    def describe(self) -> dict[str, int]:
        """Return the numbers that determine the order, by name."""
        return {"n": self.n, "batch_size": self.batch_size, "seed": self._seed}


Place = tuple[int, int]  # an epoch, and the number of a window in it


class WindowOrder:
    """The order of patches if shards are read in groups of ``window`` shards. A group is called a window.

    ``sizes`` contains the number of patches of each shard. Every epoch shuffles the shards, then the patches within
    each window. The rows of a window are the patches of its first shard, then of its second shard, and so on.
    """

    def __init__(self, sizes: list[int], batch_size: int, seed: int, window: int) -> None:
        self.n = sum(sizes)
        self.batch_size = batch_size
        self._seed, self._window = seed, window
        self.largest_window = sum(sorted(sizes)[-window:])  # patches
        self._sizes = np.array(sizes)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._windows = -(-len(sizes) // window)
        self._epoch = functools.lru_cache(2)(self._shuffle_shards)
        self._rows = functools.lru_cache(4)(self._shuffle_rows)

    def batch(self, step: int) -> Tensor:
        return torch.cat([self._indices(place)[rows] for place, rows in self.pieces(step)])

    def describe(self) -> dict[str, int]:
        return {"n": self.n, "batch_size": self.batch_size, "seed": self._seed, "window": self._window}

    def pieces(self, step: int, ranks: Ranks = SINGLE_PROCESS) -> list[tuple[Place, Tensor]]:
        """Return the windows of the batch of ``step`` in order, each with the rows that this rank uses: int64."""
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        mask = ranks.row_mask(self.batch_size)
        pieces = []
        for epoch in range(start // self.n, (stop - 1) // self.n + 1):
            _, edges = self._epoch(epoch)
            begin, end = max(start - epoch * self.n, 0), min(stop - epoch * self.n, self.n)
            first = int(np.searchsorted(edges, begin, side="right")) - 1
            last = int(np.searchsorted(edges, end, side="left"))
            for window in range(first, last):
                edge = int(edges[window])
                rows = self._rows((epoch, window))[max(begin - edge, 0) : end - edge]
                own = mask[epoch * self.n + max(begin, edge) - start :][: len(rows)]
                pieces.append(((epoch, window), rows[own]))
        return pieces

    def wanted(self, place: Place, ranks: Ranks) -> Tensor:
        """Return a mask of the rows that this rank uses, in any batch, from window ``place``: bool (rows,)."""
        rows = self._rows(place)
        first = place[0] * self.n + int(self._epoch(place[0])[1][place[1]])
        wanted = torch.empty(len(rows), dtype=torch.bool)
        wanted[rows] = ranks.row_mask(self.batch_size)[(first + torch.arange(len(rows))) % self.batch_size]
        return wanted

    def shards(self, place: Place) -> list[int]:
        """Return the indices of the shards in window ``place``."""
        return [int(shard) for shard in self._epoch(place[0])[0][place[1]]]

    def after(self, place: Place) -> Place:
        """Return the window after ``place``."""
        epoch, window = place
        return (epoch, window + 1) if window + 1 < self._windows else (epoch + 1, 0)

    def _indices(self, place: Place) -> Tensor:
        spans = [np.arange(self._sizes[shard]) + self._firsts[shard] for shard in self.shards(place)]
        return torch.from_numpy(np.concatenate(spans))

    def _shuffle_shards(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the shards of each window of an epoch, and the sample indices at which the windows begin and end."""
        order = Stream(self._seed, "shards", epoch).permutation(len(self._sizes)).numpy()
        windows = [order[first : first + self._window] for first in range(0, len(order), self._window)]
        return windows, np.cumsum([0, *(self._sizes[shards].sum() for shards in windows)])

    def _shuffle_rows(self, place: Place) -> Tensor:
        count = int(self._sizes[self.shards(place)].sum())
        return Stream(self._seed, "window", place[0] * self._windows + place[1]).permutation(count)
