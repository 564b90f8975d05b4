"""Whether a folder may take a build: empty, the same build unfinished, done, or the beginning of it."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.diff import differences
from manifests.errors import PatchSetError
from manifests.format.canonical_json import MAX_SAFE_INTEGER, parse_json
from manifests.format.checksums import SUMS_NAME
from manifests.format.schema import MANIFEST_NAME, Manifest
from manifests.limits import MAX_PATCHES
from manifests.patchset import open_folder
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, read_regular_file, write_atomically
from manifests.support.system_files import entries
from manifests.support.validation import describe
from patchgen.errors import PatchgenError, TakenError
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE
from patchgen.pipeline.plan import PhotoPlan, Plan, identity_of_source, make_plan
from patchgen.recipe import recorded_recipe
from patchgen.sources.photo import Photo

PLAN_NAME = ".patchgen-build.json"
"""Lies in the folder while a build is unfinished; the manifest takes its place."""

ASIDE_NAME = ".patchgen-build-manifest.json"
"""The manifest of a finished set while it is repaired or made longer; it may be the only copy there is."""

MAX_MARKER_BYTES = 1 << 20
_SHOWN = 3


class _Marker(BaseModel):
    """What a marker holds: a plan's identity, with the sources whole."""

    model_config = ConfigDict(strict=True, extra="forbid")
    format: Literal["patchset/1"]
    n: Annotated[int, Field(ge=1, le=MAX_PATCHES)]
    size: Annotated[int, Field(ge=MIN_SIZE, le=MAX_SIZE)]
    seed: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
    shard_size: Annotated[int, Field(ge=1, le=MAX_SHARD_PATCHES)]
    encoding: dict[str, Any]
    recipe: dict[str, Any]
    sources: Annotated[list[dict[str, Any]], Field(min_length=1)]


def claim_folder(folder: Path, plan: Plan, *, extend: bool) -> Manifest | None:
    """Make sure an existing ``folder`` may hold this build, and mark it; the manifest, if there is one.

    With ``extend``, a finished set may be the beginning of this build.

    Raises:
        PatchgenError: the folder holds another set, or files that no build wrote.
    """
    if (folder / MANIFEST_NAME).exists():
        try:
            manifest = open_folder(folder).manifest
        except PatchSetError as error:
            raise PatchgenError(f"{error}; nothing was written") from error
        found = identity_of(manifest)
        if found["shard_size"] is None:  # a set of one shard fits every shard size that holds it
            found["shard_size"] = plan.shard_size if plan.shard_size >= manifest.n else manifest.n
        if extend and manifest.n < plan.n:
            found["n"] = plan.n
        _refuse_other(folder, plan, found, "holds a finished set")
        return manifest
    marker = folder / PLAN_NAME
    if marker.exists():
        _refuse_other(folder, plan, _read_marker(marker), "holds an unfinished build")
        return None
    foreign = sorted(path.name for path in entries(folder) if not path.name.startswith(PART_PREFIX))
    if foreign and marker.exists():
        return claim_folder(folder, plan, extend=extend)  # another process has just begun the same build
    if foreign:
        listed = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        what = f"holds files that no build wrote ({listed}), expected an empty or new folder"
        raise TakenError(folder, what, "choose another --out")
    mark_unfinished(folder, plan)
    return None


def unfinished_plan(folder: Path, n: int, photos: Sequence[Photo]) -> PhotoPlan:
    """The plan of a build of ``n`` patches that an earlier run left unfinished in ``folder``.

    Raises:
        PatchgenError: it was another build, or its marker is damaged.
    """
    found = _read_marker(folder / PLAN_NAME)
    plan = make_plan(
        photos=photos,
        recipe=recorded_recipe(found["recipe"], found["encoding"]),
        n=n,
        size=found["size"],
        seed=found["seed"],
        shard_size=found["shard_size"],
    )
    _refuse_other(folder, plan, found, "holds an unfinished build")
    return dataclasses.replace(plan, sources=tuple(found["sources"]))


def mark_unfinished(folder: Path, plan: Plan) -> None:
    """Say in the folder which build is under way; a manifest, which would call it finished, is put aside."""
    # The sources whole, with their names and card texts: an interrupted extension has them from nowhere else.
    marker = plan.identity() | {"sources": list(plan.sources)}
    text = json.dumps(marker, sort_keys=True, indent=1) + "\n"
    write_atomically(folder / PLAN_NAME, text.encode())
    if (folder / MANIFEST_NAME).exists():
        (folder / MANIFEST_NAME).replace(folder / ASIDE_NAME)
    (folder / SUMS_NAME).unlink(missing_ok=True)


def mark_finished(folder: Path) -> None:
    """Remove what ``mark_unfinished`` left, now that there is a manifest again."""
    for name in (PLAN_NAME, ASIDE_NAME):
        (folder / name).unlink(missing_ok=True)


def identity_of(manifest: Manifest) -> dict[str, Any]:
    """The plan identity a finished set was built from."""
    value = manifest.model_dump(mode="json")
    return {
        **{key: value[key] for key in ("format", "n", "size", "seed", "encoding", "recipe")},
        "shard_size": value["shards"][0]["n"] if len(value["shards"]) > 1 else None,
        "sources": [identity_of_source(source) for source in value["sources"]],
    }


def _read_marker(marker: Path) -> dict[str, Any]:
    try:
        value = parse_json(read_regular_file(marker, MAX_MARKER_BYTES), str(marker))
    except (PatchSetError, OSError) as error:
        raise PatchgenError(f"{marker}: cannot be read: {error}; choose another --out") from error
    try:
        return _Marker.model_validate(value).model_dump()
    except ValidationError as error:
        what = describe(error, _Marker)
        raise PatchgenError(f"{marker}: is no build record: {what}; choose another --out") from error


def _refuse_other(folder: Path, plan: Plan, found: dict[str, Any], what: str) -> None:
    wanted = plan.identity()
    found = found | {"sources": [identity_of_source(source) for source in found["sources"]]}
    differing = list(differences(found, wanted))
    if [path for path, _, _ in differing] == ["n"]:
        shorter = what == "holds a finished set" and found["n"] < plan.n
        raise TakenError(
            folder,
            f"{what} of {counted(found['n'], 'patch')}, this build has {plan.n}",
            "make it longer with 'patchgen extend', or choose another --out"
            if shorter
            else f"choose another --out, or give --n {found['n']}",
            shorter=shorter,
        )
    if differing:
        # First what a user types as an option, then what a recipe says.
        differing.sort(key=lambda item: ("." in item[0] and item[0] != "encoding.format", item[0]))
        has = ", ".join(f"{path} {value}" for path, value, _ in differing[:_SHOWN])
        wants = ", ".join(f"{path} {value}" for path, _, value in differing[:_SHOWN])
        more = f" (and {len(differing) - _SHOWN} more)" if len(differing) > _SHOWN else ""
        raise TakenError(
            folder,
            f"{what} with {has}, this build has {wants}{more}",
            "choose another --out, or give the options it was built with",
        )
