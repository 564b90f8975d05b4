"""Draw random numbers from Philox by seed, purpose and position. All versions of NumPy draw equal bits (NEP 19)."""

import hashlib

import numpy as np
import torch
from torch import Tensor


class Stream:
    """The random numbers for one purpose at one position (a step or an epoch) of a run with ``seed``."""

    def __init__(self, seed: int, purpose: str, position: int) -> None:
        digest = hashlib.sha256(f"{seed}/{purpose}/{position}".encode()).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest[:16], "big"))

    def word(self) -> int:
        """Return 64 random bits."""
        return int(self._bits.random_raw())

    def uniform(self, *shape: int) -> Tensor:
        """Return float64 numbers in [0, 1), as a tensor with ``shape``."""
        words = self._bits.random_raw(int(np.prod(shape)))
        return torch.from_numpy((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def integers(self, n: int, *shape: int) -> Tensor:
        """Return int64 numbers in [0, n), as a tensor with ``shape``, for n far below 2^53."""
        return (self.uniform(*shape) * n).long()

    def beta(self, alpha: float, count: int) -> Tensor:
        """Return float64 (count,) drawn from Beta(alpha, alpha), by Jöhnk's method (1964) up to alpha = 1.

        For a larger alpha, uniform numbers are drawn, and accepted with a probability proportional to the density.
        """
        found = torch.empty(0, dtype=torch.float64)
        while len(found) < count:
            first, second = self.uniform(2, max(count, 16))
            if alpha <= 1:
                x, y = first ** (1 / alpha), second ** (1 / alpha)
                good = (x + y <= 1) & (x + y > 0)
                found = torch.cat([found, (x / (x + y))[good]])
            else:
                found = torch.cat([found, first[second < (4 * first * (1 - first)) ** (alpha - 1)]])
        return found[:count]

    def permutation(self, n: int) -> Tensor:
        """Return a permutation of 0 to n - 1: int64 (n,)."""
        return torch.from_numpy(np.argsort(self._bits.random_raw(n), kind="stable"))
