"""Plan a build: everything that decides the bytes of a set."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Self

import cv2

from manifests.format.canonical_json import canonical_json
from manifests.format.digest import NOT_IN_SET_ID_SOURCE
from manifests.format.schema import FORMAT, MAX_SHARDS, Manifest
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE
from patchgen.pipeline.shard import ShardTask
from patchgen.pixels.encode import RecordedRecipe
from patchgen.pixels.geometry import build_pyramids
from patchgen.pixels.pyramid import Pyramid
from patchgen.recipe import Recipe, recorded_recipe
from patchgen.sources.photo import Photo

Card = dict[str, str | None]  # license, URL and attribution of a source, by their keys in the manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Everything that decides the bytes of a set, and nothing else."""

    n: int
    size: int
    seed: int
    shard_size: int
    recipe: RecordedRecipe
    sources: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        """Check that the set is not larger than a build may be."""
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise PatchgenError(f"patches of {self.size} px: expected {MIN_SIZE} to {MAX_SIZE}")
        if min(self.shard_size, self.n) > MAX_SHARD_PATCHES:
            raise PatchgenError(f"shards of {self.shard_size} patches: expected at most {MAX_SHARD_PATCHES}")
        if self.shards > MAX_SHARDS:
            raise PatchgenError(
                f"--n {self.n} in shards of {self.shard_size} makes {self.shards} shards, at most {MAX_SHARDS}; "
                "raise --shard-size or build several sets"
            )

    @property
    def shards(self) -> int:
        return -(-self.n // self.shard_size)

    def identity(self) -> dict[str, Any]:
        """Return what two builds must share to write the same set."""
        return {
            "format": FORMAT,
            **{key: getattr(self, key) for key in ("n", "size", "seed", "shard_size")},
            "encoding": self.recipe.encoding_json(),
            "recipe": self.recipe.pixels_json(),
            "sources": [identity_of_source(source) for source in self.sources],
        }

    @property
    def build_id(self) -> str:
        """SHA-256, as hex, of what decides the bytes of every file of a set, known before it is built."""
        identity = self.identity() | {"shard_size": min(self.shard_size, self.n)}  # a set of one shard has no other
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    @property
    def plan_id(self) -> str:
        """SHA-256, as hex, of what a patch depends on: not the number of patches, nor the size of shards."""
        identity = {key: value for key, value in self.identity().items() if key not in ("n", "shard_size")}
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    def with_cards_of(self, manifest: Manifest) -> Self:
        """Return this plan with the names and card texts of a finished set, where it has none of its own."""
        merged = []
        for new, source in zip(self.sources, manifest.sources, strict=True):
            old = source.model_dump(mode="json")
            merged.append({**old, **{k: v for k, v in new.items() if v is not None}, "name": old["name"]})
        return dataclasses.replace(self, sources=tuple(merged))

    def tasks(self) -> list[ShardTask]:
        """Return the shards of the set, all of ``shard_size`` patches but the last."""
        size, firsts = self.shard_size, range(0, self.n, self.shard_size)
        return [ShardTask(number=k, first_index=i, n=min(size, self.n - i)) for k, i in enumerate(firsts)]

    def pyramids(self, photos: Sequence[Photo]) -> tuple[Pyramid, ...]:
        """Return what patches are read from."""
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoPlan(BuildPlan):
    """The plan of a set whose patches a recipe draws from photos."""

    recipe: Recipe

    def pyramids(self, photos: Sequence[Photo]) -> tuple[Pyramid, ...]:
        """Return the pyramids of ``photos``."""
        return build_pyramids(self.recipe.geometry, self.size, [photo.pixels for photo in photos])


def make_plan(
    *,
    photos: Sequence[Photo],
    recipe: Recipe,
    n: int,
    size: int,
    seed: int,
    shard_size: int | None,
    cards: Sequence[Card] = (),
) -> PhotoPlan:
    """Return a plan; ``cards`` has license, URL and attribution of each photo, or is empty."""
    sources = []
    for photo, card in zip(photos, cards or [{}] * len(photos), strict=True):
        if min(photo.width, photo.height) < size:
            raise PatchgenError(
                f"{photo.path}: {photo.width}×{photo.height} pixels, smaller than a patch of {size}×{size}; "
                "use a larger photo or a smaller --size"
            )
        digests = (photo.sha256, photo.pixels_sha256)
        sources.append(source_record(photo.path.name, digests, (photo.width, photo.height), card))
    shard_size = shard_size or default_shard_size(size)
    plan = PhotoPlan(n=n, size=size, seed=seed, shard_size=shard_size, recipe=recipe, sources=tuple(sources))
    recipe.require_fit(size)
    return plan


def source_record(name: str, digests: tuple[str, str], extent: tuple[int, int], card: Card) -> dict[str, Any]:
    """Return a source as a manifest has it; ``digests`` are of the file and of its pixels, ``extent`` in pixels."""
    for key, text in card.items():
        if text is not None and not _is_unicode(text):
            raise PatchgenError(f"{key} of a source: {text!r} is not UTF-8 text; give its option another value")
    facts = {"sha256": digests[0], "pixels": digests[1], "width": extent[0], "height": extent[1]}
    no_card = {"licence": None, "url": None, "attribution": None}
    return {"name": name if _is_unicode(name) else ascii(name), **facts, **no_card, **card}


def _is_unicode(text: str) -> bool:
    """Return whether a text from the command line is UTF-8: other bytes arrive as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def plan_of(manifest: Manifest, photos: Sequence[Photo], *, n: int) -> PhotoPlan:
    """Return the plan of a finished set, with ``n`` patches; ``photos`` are in the order of its sources.

    A set of one shard does not tell its shard size: the default is assumed, or the size of the shard if it is larger.
    """
    value = manifest.model_dump(mode="json")
    recipe = recorded_recipe(value["recipe"], value["encoding"])
    theirs = str(manifest.environment.get("opencv-python-headless", "")).partition(".")[0]
    ours = cv2.__version__.partition(".")[0]
    if theirs and theirs != ours:
        raise PatchgenError(
            f"the set was written with OpenCV {theirs}.x, here is {ours}.x, which computes other pixels; install "
            f"opencv-python-headless {theirs}.x and the version of this package that goes with it"
        )
    if len(photos) != len(manifest.sources):
        names = ", ".join(source.name for source in manifest.sources)
        raise PatchgenError(
            f"images given: {len(photos)}, sources of the set: {len(manifest.sources)}, {names}; give --image for "
            "each, in this order"
        )
    for photo, source in zip(photos, manifest.sources, strict=True):
        if (photo.pixels_sha256, photo.width, photo.height) != (source.pixels, source.width, source.height):
            raise PatchgenError(
                f"{photo.path}: {photo.width}×{photo.height} pixels with digest {photo.pixels_sha256[:16]}…, the "
                f"set's source {source.name!r} has {source.width}×{source.height} with {source.pixels[:16]}…; "
                "give the photo that the set was made from"
            )
    sizes = [shard.n for shard in manifest.shards]
    shard_size = sizes[0] if len(sizes) > 1 else max(sizes[0], default_shard_size(manifest.size))
    if any(size != shard_size for size in sizes[:-1]) or sizes[-1] > shard_size:
        raise PatchgenError(f"the set's shards hold {sizes[:5]} … patches, expected one size for all but the last")
    same: dict[str, Any] = {"size": manifest.size, "seed": manifest.seed, "sources": tuple(value["sources"])}
    plan = PhotoPlan(n=n, shard_size=shard_size, recipe=recipe, **same)
    recipe.require_fit(plan.size)
    return plan


def default_shard_size(size: int) -> int:
    """Return the patches a shard: 20,000 of 32 px, fewer larger ones, which makes about 50 MB of JPEG.

    It depends only on the size of a patch, so that a longer build starts with the shards of a shorter one.
    """
    return max(100, 20_000 * 32 * 32 // max(size, 32) ** 2)


def identity_of_source(source: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a source that decides pixels."""
    return {key: value for key, value in source.items() if key not in NOT_IN_SET_ID_SOURCE}
