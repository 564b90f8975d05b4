"""Make patches: a range of indices in, pixels and every applied parameter out.

Parameters are computed for all patches at once: positions, tables, matrices. What remains for each patch is one call
of OpenCV for each step.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from manifests.format.digest import pixel_digest
from patchgen.pixels.albumentations_steps import NamedStep
from patchgen.pixels.color_jitter import ColorJitterConfig, Jitter, Patch
from patchgen.pixels.encode import make_encoder
from patchgen.pixels.geometry import place
from patchgen.pixels.pyramid import Pyramid
from patchgen.pixels.randomness import FIRST_AUGMENT_STREAM, GEOMETRY_STREAM, uniforms
from patchgen.pixels.warp import Warp
from patchgen.recipe import Recipe

_CHUNK_BYTES = 3 << 18  # pixels that pass through the steps together: few enough to stay in a core's cache


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
        self._encode = make_encoder(recipe.encoding)
        self._steps: list[Jitter | NamedStep] = []
        for stream, config in enumerate(recipe.augment, FIRST_AUGMENT_STREAM):
            draws = uniforms(seed, stream, first_index, n)
            if isinstance(config, ColorJitterConfig):
                self._steps.append(Jitter(config, draws))
            else:
                self._steps.append(NamedStep(config, draws, seed=seed, stream=stream, first_index=first_index))

    def chunks(self) -> Iterator[list[Patch]]:
        """Yield all patches in order, some at a time, each RGB uint8 of shape (size, size, 3)."""
        for start in range(0, self._n, self._chunk):
            patches = self.warped(start)
            self.augment(patches, start)
            yield patches

    def encoded(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield the encoded bytes and the raw pixel digest of each patch, in order, some at a time."""
        for patches in self.chunks():
            yield [(self._encode(patch), pixel_digest(patch)) for patch in patches]

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
            skipped = ~step.columns["applied"]
            for name, values in step.columns.items():
                hidden = values if name == "applied" else np.ma.masked_array(values, mask=skipped)
                columns[f"augment{number}_{step.name}_{name}"] = hidden
        return columns
