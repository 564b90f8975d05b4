"""Draw counter-based random numbers: those of patch *index* depend only on (seed, stream, index).

Philox-4x64 is a keyed function of a counter (Salmon et al., SC 2011). Its key is (seed, stream), and patch
*index* owns counters ``index * BLOCKS`` to ``index * BLOCKS + BLOCKS - 1``, four 64-bit words each. Only raw
words are used: NumPy guarantees those in all versions, but not ``Generator``'s methods (NEP 19).
"""

import numpy as np
import numpy.typing as npt

BLOCKS = 8
DRAWS = 4 * BLOCKS  # of a patch in each stream; a change needs a new version of every recipe
GEOMETRY_STREAM, FIRST_AUGMENT_STREAM = 0, 1


def uniforms(seed: int, stream: int, first_index: int, n: int) -> npt.NDArray[np.float64]:
    """Return uniform draws in [0, 1) for ``n`` patches from ``first_index`` on: float64 of shape (n, DRAWS).

    ``seed`` is below 2**64. The draws of a patch do not depend on ``first_index`` and ``n``.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=first_index * BLOCKS).random_raw(n * DRAWS)
    return to_unit(raw).reshape(n, DRAWS)


def to_unit(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return the top 53 bits of each word as a float64 in [0, 1), exactly."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def between(draws: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Map draws in [0, 1) onto [low, high)."""
    return low + (high - low) * draws


def generator(seed: int, stream: int, index: int) -> np.random.Generator:
    """Return a generator for draws of one patch in one stream that are independent of its ``uniforms``.

    Its counters start at (0, 0, index, 1), least word first, which ``uniforms`` never reaches.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    counter = np.array([0, 0, index, 1], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
