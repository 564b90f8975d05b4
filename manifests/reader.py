"""Read patches of a set by their indices."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from manifests.errors import PatchSetError
from manifests.patchset import PatchSet


def read_patches(patchset: PatchSet, indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield RGB uint8 pixels (size, size, 3) of the patches ``indices``, in their order, without verifying shards."""
    for index in indices:
        try:
            yield patchset[index]
        except IndexError as error:
            raise PatchSetError(str(error)) from error


def evenly_spaced(patchset: PatchSet, count: int) -> list[int]:
    """Return the indices of ``count`` patches spread evenly over a set, or of all if it has fewer."""
    n = patchset.manifest.n
    return [number * n // min(count, n) for number in range(min(count, n))]
