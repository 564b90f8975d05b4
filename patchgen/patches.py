"""Compute single patches of a photo, without files."""

import logging
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manifests.format.canonical_json import MAX_SAFE_INTEGER
from manifests.format.schema import patch_key
from manifests.limits import MAX_PATCHES
from manifests.untrusted.images import decode_patch
from patchgen.arguments import Given, each_image, image_format, open_image, whole_number
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SIZE, MIN_SIZE
from patchgen.pipeline.plan import make_plan
from patchgen.pipeline.shard_writer import PatchMaker
from patchgen.pixels.exact_math import Pixels
from patchgen.pixels.geometry import build_pyramids
from patchgen.pixels.pyramid import Pyramid
from patchgen.recipe import AnyRecipe, load_recipe
from patchgen.sources.photo import finding_lines


class Patches:
    """The patches of a photo, computed when they are read: ``patches[i]`` is uint8 (size, size, 3), RGB.

    These are the pixels that a reader gets as patch i of a set that ``build`` writes from the same ``image``,
    ``recipe``, ``seed``, ``size`` and ``format``. If the format is lossy (JPEG), the patch is encoded and decoded in
    memory. ``format="png"`` returns the pixels before this loss, and is faster.

    This is a map-style data set for ``torch.utils.data.DataLoader``. It can be pickled: a worker process opens the
    photo again, once. ``image`` is a path, a PIL image, an array of uint8 (H, W, 3) in RGB, or a list of these.

    Raises:
        PatchgenError: an argument is wrong, the photo cannot be read, or the recipe does not fit.
    """

    def __init__(
        self,
        image: Given | Sequence[Given],
        *,
        recipe: AnyRecipe = "asano2023",
        seed: int = 0,
        size: int = 32,
        n: int | None = None,
        format: str | None = None,
    ) -> None:
        self._images = each_image(image)
        self.recipe = load_recipe(recipe).with_format(image_format(format))
        self.seed = whole_number("seed", seed, 0, MAX_SAFE_INTEGER)
        self.size = whole_number("size", size, MIN_SIZE, MAX_SIZE)
        self.n = None if n is None else whole_number("n", n, 1, MAX_PATCHES)
        self._digests: list[str] = []  # of the pixels of the photos
        self._pyramids: tuple[Pyramid, ...] | None = self._open()

    def __len__(self) -> int:
        """Return ``n``. Raise TypeError if the number of patches was not given."""
        if self.n is None:
            raise TypeError("these Patches have no length, because there is no end of patches; give n=50_000 for one")
        return self.n

    def __getitem__(self, index: int) -> Pixels:
        """Return the RGB uint8 pixels (size, size, 3) of a patch as a new array.

        Raises:
            IndexError: the index is negative, or not smaller than ``n``.
            PatchgenError: the photo has changed, or a step of the recipe fails.
        """
        if isinstance(index, slice):
            raise TypeError("Patches have no slices; write for example [patches[i] for i in range(10)]")
        number, end = operator.index(index), self.n or MAX_PATCHES
        if not 0 <= number < end:
            raise IndexError(f"there is no patch {number}; use an index from 0 to {end - 1}")
        if self._pyramids is None:
            self._pyramids = self._open()
        options = {"size": self.size, "seed": self.seed, "first_index": number, "n": 1}
        maker = PatchMaker(self.recipe, self._pyramids, **options)
        if self.recipe.encoding.format == "jpg":
            data = next(maker.encoded())[0][0]
            return decode_patch(data, f"{patch_key(number)}.jpg", self.size, "jpg").copy()
        return next(maker.chunks())[0]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_pyramids": None}  # large; another process computes it from the photo

    def __repr__(self) -> str:
        names = [repr(str(item)) if isinstance(item, Path) else f"array{item.shape}" for item in self._images]
        facts = f"recipe={self.recipe.name!r}, seed={self.seed}, size={self.size}, n={self.n}"
        image = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
        return f"Patches({image}, {facts})"

    def _open(self) -> tuple[Pyramid, ...]:
        """Check and read the photos, and return their pyramids."""
        photos = [open_image(image) for image in self._images]
        for line in [] if self._digests else finding_lines(photos):
            logging.getLogger("patchgen").warning("%s", line)
        digests = [photo.pixels_sha256 for photo in photos]
        for photo, old, new in zip(photos, self._digests or digests, digests, strict=True):
            if old != new:
                what = f"the photo has the pixel sha256 {new}, but {old} when these Patches were created"
                raise PatchgenError(f"{photo.path}: {what}; restore the photo")
        self._digests = digests
        make_plan(photos=photos, recipe=self.recipe, n=1, size=self.size, seed=self.seed, shard_size=None)
        return build_pyramids(self.recipe.geometry, self.size, [photo.pixels for photo in photos])
