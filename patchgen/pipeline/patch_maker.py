"""Make patches: a range of indices in, pixels and every applied parameter out.

Parameters are computed for all patches at once: positions, tables, matrices. What remains for each patch is one call
of OpenCV for each step.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from patchgen.pixels.color_jitter import ColorJitterConfig, Jitter
from patchgen.pixels.geometry import place
from patchgen.pixels.pyramid import Pyramid
from patchgen.pixels.randomness import FIRST_AUGMENT_STREAM, GEOMETRY_STREAM, uniforms
from patchgen.pixels.warp import Warp
from patchgen.recipe import Recipe

Patch = npt.NDArray[np.uint8]

_CHUNK_BYTES = 3 << 18
"""Pixels that pass through the steps together: few enough to stay in a core's cache."""


class Step(Protocol):
    """One augmentation step of the patches of a range, after the warp."""

    name: str

    def __call__(self, patches: list[Patch], start: int) -> None:
        """Replace ``patches`` in their list; the first has number ``start`` in the range."""

    def columns(self) -> dict[str, Any]:
        """Return the parameters, one array of n values a column; ``applied`` says to which patches."""


class PatchMaker:
    """Makes the patches ``first_index`` to ``first_index + n - 1`` of a recipe."""

    def __init__(
        self, recipe: Recipe, pyramids: Sequence[Pyramid], *, size: int, seed: int, first_index: int, n: int
    ) -> None:
        draws = uniforms(seed, GEOMETRY_STREAM, first_index, n)
        self._places = place(recipe.geometry, size, pyramids, draws)
        self._warp = Warp(recipe.geometry, size, pyramids, self._places)
        self._n = n
        self._chunk = max(1, _CHUNK_BYTES // (size * size * 3))
        self._steps = [
            _make_step(config, seed, FIRST_AUGMENT_STREAM + number, first_index, n)
            for number, config in enumerate(recipe.augment)
        ]

    def chunks(self) -> Iterator[list[Patch]]:
        """Yield all patches in order, some at a time, each RGB uint8 of shape (size, size, 3)."""
        for start in range(0, self._n, self._chunk):
            patches = self.warped(start)
            self.augment(patches, start)
            yield patches

    def warped(self, start: int) -> list[Patch]:
        """Return the chunk of patches from number ``start`` on, as the warp cuts them from the photo."""
        return [self._warp[i] for i in range(start, min(start + self._chunk, self._n))]

    def augment(self, patches: list[Patch], start: int) -> None:
        """Apply every step of the recipe to ``patches`` in their list; the first has number ``start``."""
        for step in self._steps:
            step(patches, start)

    def columns(self) -> dict[str, Any]:
        """Return every applied parameter, one array of n values a column; null where a step was skipped."""
        columns: dict[str, Any] = dict(self._places.columns())
        for number, step in enumerate(self._steps):
            sampled = step.columns()
            skipped = ~sampled["applied"]
            for name, values in sampled.items():
                hidden = values if name == "applied" else np.ma.masked_array(values, mask=skipped)
                columns[f"augment{number}_{step.name}_{name}"] = hidden
        return columns


def _make_step(config: Any, seed: int, stream: int, first_index: int, n: int) -> Step:
    draws = uniforms(seed, stream, first_index, n)
    if isinstance(config, ColorJitterConfig):
        return Jitter(config, draws)
    from patchgen.pixels.albumentations_steps import NamedStep  # noqa: PLC0415 - it imports Albumentations, which takes seconds

    return NamedStep(config, draws, seed=seed, stream=stream, first_index=first_index)
