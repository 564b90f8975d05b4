"""Plan a build: collect everything that decides the bytes of a set."""

import dataclasses
import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import cv2

from manifests.format.canonical_json import canonical_json
from manifests.format.digest import NOT_IN_SET_ID_SOURCE
from manifests.format.schema import FORMAT, MAX_SHARDS, Manifest
from manifests.support.counts import counted
from manifests.support.redaction import has_secret
from patchgen.errors import PatchgenError
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE
from patchgen.pipeline.shard import BuildContext, ShardTask
from patchgen.pixels.encode import RecordedRecipe
from patchgen.pixels.geometry import build_pyramids
from patchgen.pixels.pyramid import Pyramid
from patchgen.recipe import Recipe, recorded_recipe
from patchgen.sources.photo import Photo

PACKAGES = ("albumentations", "numpy", "opencv-python-headless", "pyarrow", "single-image-distillation")
Card = dict[str, str | None]  # license, URL and attribution of a source, by their keys in the manifest
Cards = Sequence[Card]
Photos = Sequence[Photo]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Everything that decides the bytes of a set, and nothing else."""

    n: int  # patches of the set
    size: int  # pixels of a patch's side
    seed: int
    shard_size: int  # patches of a shard
    recipe: RecordedRecipe
    sources: tuple[dict[str, Any], ...]  # as in the manifest

    def __post_init__(self) -> None:
        """Check the limits of a build, and that the recipe's transforms accept patches of this size."""
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            what = f"the patch size is {self.size} px, expected {MIN_SIZE} to {MAX_SIZE} px"
            raise PatchgenError(f"{what}; choose another size")
        if min(self.shard_size, self.n) > MAX_SHARD_PATCHES:
            what = f"a shard has {self.shard_size} patches, expected at most {MAX_SHARD_PATCHES}"
            raise PatchgenError(f"{what}; choose a smaller --shard-size")
        if self.shards > MAX_SHARDS:
            raise PatchgenError(
                f"--n {self.n} in shards of {self.shard_size} patches needs {self.shards} shards, expected at most "
                f"{MAX_SHARDS}; choose a larger --shard-size or build several sets"
            )
        if isinstance(self.recipe, Recipe):
            self.recipe.require_fit(self.size)

    @property
    def shards(self) -> int:
        return -(-self.n // self.shard_size)

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the set. Two builds with equal values write the same set."""
        return {
            "format": FORMAT,
            **{key: getattr(self, key) for key in ("n", "size", "seed", "shard_size")},
            "encoding": self.recipe.encoding_json(),
            "recipe": self.recipe.pixels_json(),
            "sources": [identity_of_source(source) for source in self.sources],
        }

    @property
    def build_id(self) -> str:
        """Return the SHA-256, as hex, of everything that decides the set's bytes. It is known before the build."""
        identity = self.identity() | {"shard_size": min(self.shard_size, self.n)}  # equal for all sets of one shard
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    @property
    def plan_id(self) -> str:
        """Return the SHA-256, as hex, of all that decides a patch: ``identity`` without ``n`` and ``shard_size``."""
        identity = {key: value for key, value in self.identity().items() if key not in ("n", "shard_size")}
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    def with_cards_of(self, manifest: Manifest) -> Self:
        """Return this plan with the source names in ``manifest``. Also copy missing licenses, URLs and credits."""
        merged = []
        for new, source in zip(self.sources, manifest.sources, strict=True):
            old = source.model_dump(mode="json")
            merged.append({**old, **{k: v for k, v in new.items() if v is not None}, "name": old["name"]})
        return dataclasses.replace(self, sources=tuple(merged))

    def tasks(self) -> list[ShardTask]:
        """Return a task for each shard of the set. Only the last shard may have fewer than ``shard_size`` patches."""
        size, firsts = self.shard_size, range(0, self.n, self.shard_size)
        return [ShardTask(number=k, first_index=i, n=min(size, self.n - i)) for k, i in enumerate(firsts)]

    def context(self, photos: Sequence[Photo], folder: Path) -> BuildContext:
        """Return the values that all shards of the build share. They include the pyramids of ``photos``."""
        shared: dict[str, Any] = {key: getattr(self, key) for key in ("recipe", "size", "seed", "plan_id")}
        pyramids: tuple[Pyramid, ...] = ()
        if isinstance(self.recipe, Recipe):
            pyramids = build_pyramids(self.recipe.geometry, self.size, [photo.pixels for photo in photos])
        return BuildContext(pyramids=pyramids, folder=folder, **shared)


def make_plan(
    *, photos: Photos, recipe: Recipe, n: int, size: int, seed: int, shard_size: int | None, cards: Cards = ()
) -> BuildPlan:
    """Return the plan of a new set. ``cards`` has a card (license, URL, attribution) for each photo, or is empty."""
    sources = []
    for photo, card in zip(photos, cards or [{}] * len(photos), strict=True):
        check_card(card)
        if min(photo.width, photo.height) < size:
            raise PatchgenError(
                f"{photo.path}: the photo has {photo.width}×{photo.height} pixels, but a patch has {size}×{size}; "
                "use a larger photo or a smaller --size"
            )
        digests = (photo.sha256, photo.pixels_sha256)
        sources.append(source_record(photo.path.name, digests, (photo.width, photo.height), card))
    shard_size = shard_size or default_shard_size(size)
    return BuildPlan(n=n, size=size, seed=seed, shard_size=shard_size, recipe=recipe, sources=tuple(sources))


def check_card(card: Card) -> None:
    """Raise an error if a text of ``card`` is not valid Unicode, or has a URL with a secret."""
    for option, text in ((key.replace("licence", "license"), text or "") for key, text in card.items()):
        if not _is_unicode(text):
            raise PatchgenError(f"--{option} {text}: the text is not valid Unicode text; give another text")
        if has_secret(text):
            raise PatchgenError(f"--{option}: the URL contains a user, a password or a key; give the public address")


def source_record(name: str, digests: tuple[str, str], extent: tuple[int, int], card: Card) -> dict[str, Any]:
    """Return the manifest entry of a source. ``digests``: of the file, of the pixels. ``extent``: width, height."""
    facts = {"sha256": digests[0], "pixels": digests[1], "width": extent[0], "height": extent[1]}
    no_card = {"licence": None, "url": None, "attribution": None}
    return {"name": name if _is_unicode(name) else ascii(name), **facts, **no_card, **card}


def _is_unicode(text: str) -> bool:
    """Return whether ``text`` has no surrogate characters. Python replaces bytes that are not UTF-8 by surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def plan_of(manifest: Manifest, photos: Sequence[Photo], *, n: int) -> BuildPlan:
    """Return the plan of the set of ``manifest``, with ``n`` patches. ``photos`` are in the order of the sources.

    The manifest of a set with one shard has no shard size. The larger of the default and ``manifest.n`` is used.
    """
    value = manifest.model_dump(mode="json")
    recipe = recorded_recipe(value["recipe"], value["encoding"])
    theirs = str(manifest.environment.get("opencv-python-headless", "")).partition(".")[0]
    ours = cv2.__version__.partition(".")[0]
    if theirs and theirs != ours:
        raise PatchgenError(
            f"the set was built with OpenCV {theirs}.x; OpenCV {ours}.x is installed and computes other pixels; "
            f"install opencv-python-headless {theirs}.x and a version of single-image-distillation that accepts it"
        )
    if len(photos) != len(manifest.sources):
        names = ", ".join(source.name for source in manifest.sources)
        raise PatchgenError(
            f"the set has {counted(len(manifest.sources), 'source')} ({names}), but --image was given "
            f"{counted(len(photos), 'time')}; give --image once for each source, in this order"
        )
    found = [f"{photo.width}×{photo.height} px and pixel sha256 {photo.pixels_sha256}" for photo in photos]
    declared = [f"{source.width}×{source.height} px and pixel sha256 {source.pixels}" for source in manifest.sources]
    for k, photo in enumerate(photos):
        if found[k] != declared[k] and sorted(found) == sorted(declared):
            right = photos[found.index(declared[k], k)].path
            raise PatchgenError(f"--image: the photos are not in the set's order; give {right} before {photo.path}")
        if found[k] != declared[k]:
            what = f"the photo has {found[k]}, but the set's source {manifest.sources[k].name!r} has {declared[k]}"
            raise PatchgenError(f"{photo.path}: {what}; give the photo that the set was built from")
    sizes = [shard.n for shard in manifest.shards]
    shard_size = sizes[0] if len(sizes) > 1 else max(sizes[0], default_shard_size(manifest.size))
    wrong = [k for k, size in enumerate(sizes) if size > shard_size or (size < shard_size and k + 1 < len(sizes))]
    if wrong:
        what = f"shard {wrong[0]} of the set has {sizes[wrong[0]]} patches, expected {shard_size}, as in shard 0"
        raise PatchgenError(f"{what}; report this to the publisher of the set")
    same: dict[str, Any] = {"size": manifest.size, "seed": manifest.seed, "sources": tuple(value["sources"])}
    return BuildPlan(n=n, shard_size=shard_size, recipe=recipe, **same)


def default_shard_size(size: int) -> int:
    """Return the default number of patches in a shard: 20,000 for patches of 32 px, and fewer for larger patches.

    The number depends only on the size of a patch, so a longer build begins with the shards of a shorter build.
    """
    return max(100, 20_000 * 32 * 32 // max(size, 32) ** 2)


def identity_of_source(source: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest entry of a source without name, license, URL and attribution, which decide no pixel."""
    return {key: value for key, value in source.items() if key not in NOT_IN_SET_ID_SOURCE}


def environment(profile: str) -> dict[str, str]:
    """Return this machine's package versions for a manifest and, if ``profile`` is ``fast``, its CPU features."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found |= {"python": platform.python_version(), "machine": platform.machine()}
    if profile == "fast":
        found["cpu_features"] = " ".join(str(cv2.getCPUFeaturesLine()).split())
    return found
