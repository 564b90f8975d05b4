"""Check the output folder of a build. The folder must be empty, or contain an earlier run of the same build."""

import json
from pathlib import Path
from typing import Any

from manifests.diff import differences
from manifests.errors import PatchSetError, unreadable
from manifests.format.canonical_json import parse_json
from manifests.format.checksums import SUMS_NAME
from manifests.format.schema import MANIFEST_NAME, MAX_MANIFEST_BYTES, SHARD_FILE, Manifest, parse_manifest
from manifests.patchset import open_folder
from manifests.support.console import note
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, read_regular_file, write_atomically
from manifests.support.system_files import entries
from patchgen.errors import TakenError
from patchgen.pipeline.plan import BuildPlan, identity_of_source
from patchgen.pipeline.shard import recorded_shard

PLAN_NAME = ".patchgen-build.json"  # the plan of an unfinished build; the manifest replaces it
ASIDE_NAME = ".patchgen-build-manifest.json"  # the manifest of a set that is being repaired or extended
MAX_PLAN_BYTES = 1 << 20
_SHOWN, _FINISHED = 3, "a finished set"


def claim_folder(folder: Path, plan: BuildPlan, *, extend: bool) -> Manifest | None:
    """Raise an error unless ``folder`` is empty or contains the set of ``plan``. The set may be unfinished.

    Return the manifest of a finished set. If the set is not finished, or its manifest is lost or damaged, return
    None; ``folder`` then contains the plan. With ``extend``, a finished set may have fewer patches than ``plan``.
    """
    fault = f"{folder}: the folder has no {MANIFEST_NAME}"
    try:
        manifest = open_folder(folder).manifest if (folder / MANIFEST_NAME).exists() else None
    except PatchSetError as error:
        manifest, fault = None, str(error).partition("; ")[0]  # without the advice
    if manifest is not None:
        found = identity_of(manifest)
        if found["shard_size"] is None:  # a set of one shard has the bytes of every shard size of at least n
            found["shard_size"] = plan.shard_size if plan.shard_size >= manifest.n else manifest.n
        if extend and manifest.n < plan.n:
            found["n"] = plan.n
        _refuse_other(folder, plan, found, _FINISHED)
        return manifest
    plan_file = folder / PLAN_NAME
    if plan_file.exists():
        record = parse_json(read_regular_file(plan_file, MAX_PLAN_BYTES), str(plan_file))
        _refuse_other(folder, plan, record, "an unfinished build")
        return None
    names = sorted(path.name for path in entries(folder) if not path.name.startswith(PART_PREFIX))
    if names and plan_file.exists():
        return claim_folder(folder, plan, extend=extend)  # another process has just begun the same build
    shards, last = list(filter(SHARD_FILE.fullmatch, names)), plan.tasks()[-1]
    if names and not shards and MANIFEST_NAME not in names:
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        what = f"the folder contains files that no build wrote ({listed}), expected an empty or new folder"
        raise TakenError(f"{folder}: {what}; choose another --out")
    if names:  # the table of the last shard contains the plan ID, and its rows show how many patches the set has
        is_own = shards[-1:] in ([last.tar_name], [last.table_name])
        if not is_own or recorded_shard(folder, plan.plan_id, last) is None:
            what = "the table of the last shard is missing, damaged, or from a build with other options"
            raise TakenError(f"{fault}, and {what}; choose another --out")
        note(f"{fault}; the shards are from this build, so the manifest is written again")
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
    mark_unfinished(folder, plan)
    return None


def mark_unfinished(folder: Path, plan: BuildPlan) -> None:
    """Write the plan, rename the manifest, and remove SHA256SUMS. Only a finished set has a manifest."""
    text = json.dumps(plan.identity(), sort_keys=True, indent=1) + "\n"
    write_atomically(folder / PLAN_NAME, text.encode())
    if (folder / MANIFEST_NAME).exists():
        (folder / MANIFEST_NAME).replace(folder / ASIDE_NAME)
    (folder / SUMS_NAME).unlink(missing_ok=True)


def mark_finished(folder: Path) -> None:
    """Remove the plan and the renamed manifest. The folder must contain the new manifest."""
    for name in (PLAN_NAME, ASIDE_NAME):
        (folder / name).unlink(missing_ok=True)


def identity_of(manifest: Manifest) -> dict[str, Any]:
    """Return the ``BuildPlan.identity`` of a finished set. ``shard_size`` is None if the set has only one shard."""
    value = manifest.model_dump(mode="json")
    shard_size = manifest.shards[0].n if len(manifest.shards) > 1 else None
    same = {key: value[key] for key in ("format", "n", "size", "seed", "encoding", "recipe")}
    return {**same, "shard_size": shard_size, "sources": list(map(identity_of_source, value["sources"]))}


def _refuse_other(folder: Path, plan: BuildPlan, found: Any, what: str) -> None:
    """Raise an error if the identity ``found`` differs from the plan's. ``what`` names the found set in errors."""
    differing = list(differences(found, plan.identity()))
    if not differing:
        return
    if [path for path, _, _ in differing] == ["n"]:
        wants, is_extension = counted(plan.n, "patch"), what == _FINISHED and found["n"] < plan.n
        advice = "run 'patchgen extend' to add patches" if is_extension else f"give --n {found['n']}"
        what = f"the folder contains {what} of {counted(found['n'], 'patch')}, but this build has {wants}"
        raise TakenError(f"{folder}: {what}; choose another --out, or {advice}")
    # The options of a command line are listed before the keys of a recipe.
    differing.sort(key=lambda item: ("." in item[0] and item[0] != "encoding.format", item[0]))
    has = ", ".join(f"{path} {value}" for path, value, _ in differing[:_SHOWN])
    wants = ", ".join(f"{path} {value}" for path, _, value in differing[:_SHOWN])
    more = f" (and {len(differing) - _SHOWN} more differences)" if len(differing) > _SHOWN else ""
    what = f"the folder contains {what} with {has}, but this build has {wants}{more}"
    raise TakenError(f"{folder}: {what}; choose another --out, or give the same options as the first build")


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest from a file, from the folder of a set, or from a URL of a set or manifest.

    If a repair of the set in the folder was interrupted, read the manifest that the repair renamed.
    """
    if isinstance(path, str):
        from manifests.remote.fetch import open_store, read_remote_manifest  # noqa: PLC0415 - most are local

        return read_remote_manifest(open_store(path))
    if path.is_dir():
        if (path / MANIFEST_NAME).exists() or not (path / ASIDE_NAME).exists():
            return open_folder(path).manifest
        path = path / ASIDE_NAME
    try:
        return parse_manifest(read_regular_file(path, MAX_MANIFEST_BYTES), str(path))
    except OSError as error:
        raise unreadable(path, "the file", error, f"give the path of a {MANIFEST_NAME}") from error
