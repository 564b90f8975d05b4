"""Draw random numbers for each patch. The numbers depend only on the seed, the stream and the patch's index.

Philox-4x64 is a keyed function of a counter (Salmon et al., SC 2011). Our key is (seed, stream). Patch *index*
uses counters ``index * BLOCKS`` to ``index * BLOCKS + BLOCKS - 1``. Each counter returns four 64-bit words.
Only raw words are used: all versions of NumPy return the same raw words (NEP 19).
"""

import numpy as np
import numpy.typing as npt

from patchgen.pixels.exact_math import Floats

BLOCKS = 8
DRAWS = 4 * BLOCKS  # draws of a patch in each stream; a change needs a new version of every recipe
GEOMETRY_STREAM, FIRST_AUGMENT_STREAM = 0, 1


def uniforms(seed: int, stream: int, first_index: int, n: int) -> Floats:
    """Return uniform draws in [0, 1) for the patches ``first_index`` to ``first_index + n - 1``: (n, DRAWS).

    ``seed`` is below 2**64. The draws of a patch do not depend on ``first_index`` and ``n``.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=first_index * BLOCKS).random_raw(n * DRAWS)
    return to_unit(raw).reshape(n, DRAWS)


def to_unit(raw: npt.NDArray[np.uint64]) -> Floats:
    """Convert the top 53 bits of each word to a float64 in [0, 1), without rounding."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def between(draws: Floats, low: float, high: float) -> Floats:
    """Scale draws from [0, 1) to [low, high)."""
    return low + (high - low) * draws


def generator(seed: int, stream: int, index: int) -> np.random.Generator:
    """Return a random generator for one patch in one stream. Its draws are independent of ``uniforms``.

    The counter starts at (0, 0, index, 1), least significant word first. ``uniforms`` never uses such counters.
    """
    key, counter = np.array([seed, stream], dtype=np.uint64), np.array([0, 0, index, 1], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
