"""Helpers that change a set as a forger would. All digests are correct again, so only the change can be found."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests import Manifest
from manifests.errors import PatchSetError
from manifests.export.finalize import write_manifest
from manifests.format.checksums import format_sums
from manifests.format.digest import file_digest, set_id
from manifests.format.schema import parse_manifest

Change = Callable[[dict[str, Any]], Any]


def signed_manifest(value: dict[str, Any]) -> Manifest:
    """Return the manifest of a JSON value. Its ``set_id`` is computed from the value."""
    return parse_manifest(json.dumps(value | {"set_id": set_id(value)}).encode(), "edited")


def resign_manifest(path: Path) -> Path:
    """Write the correct ``set_id`` into an edited manifest, and return its path."""
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps(value | {"set_id": set_id(value)}))
    return path


def resign(folder: Path, change: Change = lambda value: None, *, exports: bool = False) -> None:
    """Make the manifest and ``SHA256SUMS`` fit the set's files. ``change`` may edit the manifest's JSON value.

    With ``exports``, write the files for other tools again too. Then the manifest must be valid.
    """
    value = json.loads((folder / "manifest.json").read_bytes())
    for shard in value["shards"]:
        for entry in (shard, shard["parquet"]):
            path = folder / entry["name"]
            entry["bytes"], entry["sha256"] = path.stat().st_size, file_digest(path)
    change(value)
    if exports:
        write_manifest(folder, signed_manifest(value))
        return
    # A value that is not a manifest has no set_id.
    with contextlib.suppress(PatchSetError, KeyError, TypeError, AttributeError, RecursionError):
        value["set_id"] = set_id(value)
    put_manifest(folder, json.dumps(value).encode())


def put_manifest(folder: Path, manifest: bytes) -> None:
    """Write the bytes of a manifest, and the ``SHA256SUMS`` of all files."""
    (folder / "manifest.json").write_bytes(manifest)
    names = (path.name for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_bytes(format_sums({name: file_digest(folder / name) for name in names}))
