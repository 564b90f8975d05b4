"""What a build will write, and whether a folder may take it: empty, the same build unfinished, or done."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from manifests.canonical import canonical_json, parse_json
from manifests.digest import NOT_IN_SET_ID_SOURCE
from manifests.errors import PatchSetError
from manifests.files import PART_PREFIX, read_regular_file, write_atomically
from manifests.patchset import MANIFEST_NAME, open_patchset
from manifests.schema import FORMAT, Manifest
from patchgen.errors import PatchgenError
from patchgen.recipe import Recipe
from patchgen.source import Photo

PLAN_NAME = ".patchgen-build.json"
"""Lies in the folder while a build is unfinished; the manifest takes its place."""


MAX_MARKER_BYTES = 1 << 20
MAX_SHARDS = 100_000
"""A manifest names every shard, in about 400 bytes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the bytes of a set, and nothing else does."""

    n: int
    size: int
    seed: int
    shard_size: int
    recipe: Recipe
    sources: tuple[dict[str, Any], ...]

    @property
    def shards(self) -> int:
        """How many shards the set has."""
        return -(-self.n // self.shard_size)

    def identity(self) -> dict[str, Any]:
        """What two builds must share to write the same set."""
        return {
            "format": FORMAT,
            "n": self.n,
            "size": self.size,
            "seed": self.seed,
            "shard_size": self.shard_size,
            "encoding": self.recipe.encoding_json(),
            "recipe": self.recipe.pixels_json(),
            "sources": [_identity_of_source(source) for source in self.sources],
        }

    def with_card_of(self, manifest: Manifest) -> "Plan":
        """This plan with the names and card texts of a finished set, where it has none of its own."""
        kept = (source.model_dump(mode="json") for source in manifest.sources)
        pairs = zip(self.sources, kept, strict=True)
        merged = (
            {**old, **{k: v for k, v in new.items() if v is not None}, "name": old["name"]}
            for new, old in pairs
        )
        return dataclasses.replace(self, sources=tuple(merged))

    @property
    def plan_id(self) -> str:
        """SHA-256, as hex, of the identity without ``n``: a shard does not depend on how many follow it."""
        identity = {key: value for key, value in self.identity().items() if key != "n"}
        return hashlib.sha256(canonical_json(identity)).hexdigest()


def make_plan(
    *,
    photo: Photo,
    recipe: Recipe,
    n: int,
    size: int,
    seed: int,
    shard_size: int | None,
    card: dict[str, Any],
) -> Plan:
    """A plan whose parts fit together; ``card`` holds the source's licence, url and attribution.

    Raises:
        PatchgenError: the photo is smaller than a patch, there would be too many shards, or a text is no text.
    """
    if min(photo.width, photo.height) < size:
        raise PatchgenError(
            f"{photo.path}: {photo.width}×{photo.height} pixels, smaller than a patch of {size}×{size}; "
            "use a larger photo or a smaller --size"
        )
    for option, text in card.items():
        if text is not None and not _is_unicode(text):
            raise PatchgenError(f"--{option}: {text!r} is not UTF-8 text")
    source = {
        "name": photo.path.name if _is_unicode(photo.path.name) else ascii(photo.path.name),
        "sha256": photo.sha256,
        "pixels": photo.pixels_sha256,
        "width": photo.width,
        "height": photo.height,
        **card,
    }
    plan = Plan(
        n=n,
        size=size,
        seed=seed,
        shard_size=shard_size or default_shard_size(size),
        recipe=recipe,
        sources=(source,),
    )
    if plan.shards > MAX_SHARDS:
        raise PatchgenError(
            f"--n {n} in shards of {plan.shard_size} makes {plan.shards} shards, at most {MAX_SHARDS}; "
            "raise --shard-size or build several sets"
        )
    return plan


def _is_unicode(text: str) -> bool:
    """Whether a text from the command line is one: bytes that are no UTF-8 arrive as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def default_shard_size(size: int) -> int:
    """Patches a shard: 20,000 at 32 px, fewer of larger ones, so that a shard stays near 50 MB of JPEG.

    It depends on the patch size alone, so that a longer build starts with the shards of a shorter one.
    """
    return max(100, 20_000 * 32 * 32 // max(size, 32) ** 2)


def _identity_of_source(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key not in NOT_IN_SET_ID_SOURCE}


def claim_folder(folder: Path, plan: Plan) -> Manifest | None:
    """Make sure an existing ``folder`` may hold this build, and mark it; the manifest, if it is already done.

    Raises:
        PatchgenError: the folder holds another set, or files that no build wrote.
    """
    if (folder / MANIFEST_NAME).exists():
        try:
            manifest = open_patchset(folder).manifest
        except PatchSetError as error:
            raise PatchgenError(f"{error}; nothing was written") from error
        _refuse_other(folder, plan, identity_of(manifest), "holds a finished set")
        return manifest
    marker = folder / PLAN_NAME
    if marker.exists():
        _refuse_other(folder, plan, _read_marker(marker), "holds an unfinished build")
        return None
    foreign = sorted(path.name for path in folder.iterdir() if not path.name.startswith(PART_PREFIX))
    if foreign:
        raise PatchgenError(
            f"{folder}: holds files that no build wrote ({', '.join(foreign[:3])}"
            f"{', …' if len(foreign) > 3 else ''}), expected an empty or new folder; choose another --out"
        )
    mark_unfinished(folder, plan)
    return None


def mark_unfinished(folder: Path, plan: Plan) -> None:
    """Say in the folder which build is under way; a manifest, which would call it finished, goes."""
    text = json.dumps(plan.identity(), sort_keys=True, indent=1) + "\n"
    write_atomically(folder / PLAN_NAME, text.encode())
    (folder / MANIFEST_NAME).unlink(missing_ok=True)


def identity_of(manifest: Manifest) -> dict[str, Any]:
    """The plan identity a finished set was built from."""
    value = manifest.model_dump(mode="json")
    return {
        **{key: value[key] for key in ("format", "n", "size", "seed", "encoding", "recipe")},
        "shard_size": value["shards"][0]["n"] if len(value["shards"]) > 1 else None,
        "sources": [_identity_of_source(source) for source in value["sources"]],
    }


def _read_marker(marker: Path) -> dict[str, Any]:
    try:
        value = parse_json(read_regular_file(marker, MAX_MARKER_BYTES), str(marker))
    except (PatchSetError, OSError) as error:
        raise PatchgenError(f"{marker}: cannot be read: {error}; choose another --out") from error
    if not isinstance(value, dict):
        raise PatchgenError(f"{marker}: is no build record; choose another --out")
    return value


def _refuse_other(folder: Path, plan: Plan, found: dict[str, Any], what: str) -> None:
    wanted = plan.identity()
    if found.get("shard_size") is None:  # a finished set of one shard fits every shard size that holds it
        found = found | {"shard_size": plan.shard_size if plan.shard_size >= plan.n else found.get("n")}
    differing = _differences(found, wanted)
    if differing:
        path, has, wants = differing[0]
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise PatchgenError(
            f"{folder}: {what} with {path} {has}, this build has {path} {wants}{more}; "
            "choose another --out, or give the options it was built with"
        )


def _differences(found: Any, wanted: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        nested = (_differences(found.get(k), wanted.get(k), f"{path}.{k}" if path else k) for k in keys)
        return [difference for differences in nested for difference in differences]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [d for i, (a, b) in pairs for d in _differences(a, b, f"{path}[{i}]")]
    return [] if found == wanted else [(path, json.dumps(found), json.dumps(wanted))]
