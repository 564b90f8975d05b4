"""Plan a build: everything that decides the bytes of a set."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Self

from manifests.format.canonical_json import canonical_json
from manifests.format.digest import NOT_IN_SET_ID_SOURCE
from manifests.format.schema import FORMAT, MAX_SHARDS, Manifest
from patchgen.environment import opencv_major
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE
from patchgen.recipe import Recipe, Recorded, recorded_recipe
from patchgen.sources.photo import Photo


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Everything that decides the bytes of a set, and nothing else."""

    n: int
    size: int
    seed: int
    shard_size: int
    recipe: Recorded
    sources: tuple[dict[str, Any], ...]

    @property
    def shards(self) -> int:
        """Number of shards of the set."""
        return -(-self.n // self.shard_size)

    def identity(self) -> dict[str, Any]:
        """Return what two builds must share to write the same set."""
        return {
            "format": FORMAT,
            "n": self.n,
            "size": self.size,
            "seed": self.seed,
            "shard_size": self.shard_size,
            "encoding": self.recipe.encoding_json(),
            "recipe": self.recipe.pixels_json(),
            "sources": [identity_of_source(source) for source in self.sources],
        }

    @property
    def build_id(self) -> str:
        """SHA-256, as hex, of what decides the bytes of every file of a set, known before it is built."""
        identity = self.identity() | {"shard_size": min(self.shard_size, self.n)}  # a set of one shard has no other
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    def with_cards_of(self, manifest: Manifest) -> Self:
        """Return this plan with the names and card texts of a finished set, where it has none of its own."""
        kept = (source.model_dump(mode="json") for source in manifest.sources)
        pairs = zip(self.sources, kept, strict=True)
        merged = (
            {**old, **{k: v for k, v in new.items() if v is not None}, "name": old["name"]} for new, old in pairs
        )
        return dataclasses.replace(self, sources=tuple(merged))

    @property
    def plan_id(self) -> str:
        """SHA-256, as hex, of what a patch depends on: not the number of patches, nor the size of shards."""
        identity = {key: value for key, value in self.identity().items() if key not in ("n", "shard_size")}
        return hashlib.sha256(canonical_json(identity)).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoPlan(BuildPlan):
    """The plan of a set whose patches a recipe draws from photos."""

    recipe: Recipe


def make_plan(
    *,
    photos: Sequence[Photo],
    recipe: Recipe,
    n: int,
    size: int,
    seed: int,
    shard_size: int | None,
    cards: Sequence[dict[str, Any]] = (),
) -> PhotoPlan:
    """Return a valid plan; ``cards`` has license, URL and attribution of each source, or is empty.

    Raises:
        PatchgenError: a photo is smaller than a patch, there would be too many shards, or a text is not UTF-8.
    """
    require_texts(cards)
    cards = cards or [{}] * len(photos)
    for photo in photos:
        if min(photo.width, photo.height) < size:
            raise PatchgenError(
                f"{photo.path}: {photo.width}×{photo.height} pixels, smaller than a patch of {size}×{size}; "
                "use a larger photo or a smaller --size"
            )
    plan = PhotoPlan(
        n=n,
        size=size,
        seed=seed,
        shard_size=shard_size or default_shard_size(size),
        recipe=recipe,
        sources=tuple(_source(photo) | card for photo, card in zip(photos, cards, strict=True)),
    )
    require_limits(plan)
    recipe.require_fit(size)
    return plan


def require_limits(plan: BuildPlan) -> None:
    """Check that a set is not larger than a build may be.

    Raises:
        PatchgenError: it is.
    """
    if not MIN_SIZE <= plan.size <= MAX_SIZE:
        raise PatchgenError(f"patches of {plan.size} px: expected {MIN_SIZE} to {MAX_SIZE}")
    if min(plan.shard_size, plan.n) > MAX_SHARD_PATCHES:
        raise PatchgenError(f"shards of {plan.shard_size} patches: expected at most {MAX_SHARD_PATCHES}")
    if plan.shards > MAX_SHARDS:
        raise PatchgenError(
            f"--n {plan.n} in shards of {plan.shard_size} makes {plan.shards} shards, at most {MAX_SHARDS}; "
            "raise --shard-size or build several sets"
        )


def _source(photo: Photo) -> dict[str, Any]:
    return {
        "name": photo.path.name if is_unicode(photo.path.name) else ascii(photo.path.name),
        "sha256": photo.sha256,
        "pixels": photo.pixels_sha256,
        "width": photo.width,
        "height": photo.height,
        "licence": None,
        "url": None,
        "attribution": None,
    }


def plan_of(manifest: Manifest, photos: Sequence[Photo], *, n: int) -> PhotoPlan:
    """Return the plan of a finished set, with ``n`` patches; ``photos`` are in the order of its sources.

    A set of one shard does not tell its shard size: the default is assumed, or the size of the shard if it is larger.

    Raises:
        PatchgenError: OpenCV has another major version than the one that wrote the set, the recipe is not one
            of this version, the set is larger than a build may be, or a photo is not that of the set.
    """
    value = manifest.model_dump(mode="json")
    recipe = recorded_recipe(value["recipe"], value["encoding"])
    theirs, ours = opencv_major(manifest.environment)
    if theirs and theirs != ours:
        raise PatchgenError(
            f"the set was written with OpenCV {theirs}.x, here is {ours}.x, which computes other pixels; install "
            f"opencv-python-headless {theirs}.x and the version of this package that goes with it"
        )
    if len(photos) != len(manifest.sources):
        names = ", ".join(source.name for source in manifest.sources[:5])
        raise PatchgenError(
            f"images given: {len(photos)}, sources of the set: {len(manifest.sources)}, "
            f"{names}{', …' if len(manifest.sources) > 5 else ''}; give --image for each, in this order"
        )
    for photo, source in zip(photos, manifest.sources, strict=True):
        if (photo.pixels_sha256, photo.width, photo.height) != (source.pixels, source.width, source.height):
            raise PatchgenError(
                f"{photo.path}: {photo.width}×{photo.height} pixels with digest {photo.pixels_sha256[:16]}…, the "
                f"set's source {source.name!r} has {source.width}×{source.height} with {source.pixels[:16]}…; "
                "give the photo that the set was made from"
            )
    first = manifest.shards[0].n
    shard_size = first if len(manifest.shards) > 1 else max(first, default_shard_size(manifest.size))
    plan = PhotoPlan(
        n=n,
        size=manifest.size,
        seed=manifest.seed,
        shard_size=shard_size,
        recipe=recipe,
        sources=tuple(value["sources"]),
    )
    require_limits(plan)
    recipe.require_fit(plan.size)
    sizes = [shard.n for shard in manifest.shards]
    if any(size != plan.shard_size for size in sizes[:-1]) or sizes[-1] > plan.shard_size:
        raise PatchgenError(f"the set's shards hold {sizes[:5]} … patches, expected one size for all but the last")
    return plan


def require_texts(cards: Sequence[dict[str, Any]]) -> None:
    """Check that the texts of cards are UTF-8.

    Raises:
        PatchgenError: one is not.
    """
    for key, text in (item for card in cards for item in card.items()):
        if text is not None and not is_unicode(text):
            raise PatchgenError(f"{key} of a source: {text!r} is not UTF-8 text; give its option another value")


def is_unicode(text: str) -> bool:
    """Return whether a text from the command line is UTF-8: other bytes arrive as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def default_shard_size(size: int) -> int:
    """Return the patches a shard: 20,000 of 32 px, fewer larger ones, which makes about 50 MB of JPEG.

    It depends only on the size of a patch, so that a longer build starts with the shards of a shorter one.
    """
    return max(100, 20_000 * 32 * 32 // max(size, 32) ** 2)


def identity_of_source(source: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a source that decides pixels."""
    return {key: value for key, value in source.items() if key not in NOT_IN_SET_ID_SOURCE}
