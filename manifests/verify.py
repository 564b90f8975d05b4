"""Verify a whole set: every file, every member of every tar, every row of every table, every digest.

The manifest must have the ``set_id`` of its content. Shards and tables must have the SHA-256 digests in the manifest.
Patches must have the SHA-256 digests in their table rows. All faults are reported.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.export.finalize import BY_EXPORT, derived_faults, file_digests, longest_exports
from manifests.export.shard_index import dali_name
from manifests.format.checksums import SUMS_NAME, read_sums
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, Manifest, Shard
from manifests.format.shard_table import count_rows
from manifests.patchset import RUN_AGAIN, open_folder
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, is_plain
from manifests.support.processes import die_with_parent, end_pool, explaining_start, start_server, starting_processes
from manifests.support.system_files import entries
from manifests.verify_shard import Faults, ShardReport, first_faults, verify_shard

BUILD_MARKER = ".patchgen-build"
_REMEDY = "download the set again or rebuild it"
MAX_SHARD_FAULTS = 1000  # faults that are kept of all shards together; further faults are only counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: the name of the file, and what was observed and expected. ``patchgen verify`` adds the remedy."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a verification. ``patches`` is the number of patches that were read and hashed."""

    folder: Path
    manifest: Manifest | None
    faults: tuple[Fault, ...]
    patches: int


def verify(
    folder: Path, *, fast: bool = False, workers: int = 1, on_patches: Callable[[int], None] | None = None
) -> Report:
    """Verify the set in ``folder``. With ``fast``, check only names, sizes and row counts, and read no shard.

    Pixel digests are checked for lossless formats. Only a rebuild of the set can check the pixel digests of JPEGs.
    ``on_patches`` is called with the number of patches verified since the last call.
    """
    try:
        manifest = open_folder(folder).manifest
    except PatchSetError as error:
        what = str(error).removeprefix(f"{folder / MANIFEST_NAME}: ").removeprefix(f"{folder}: ")
        return Report(folder=folder, manifest=None, faults=(Fault(file=MANIFEST_NAME, what=what),), patches=0)
    shard_faults, patches = ([], 0) if fast else _shard_faults(folder, manifest, workers, on_patches)
    found = [
        *first_faults(_manifest_faults(folder, manifest)),
        *first_faults(_name_faults(folder, manifest)),
        *((name, what) for name, what in derived_faults(folder, manifest) if os.path.lexists(folder / name)),
        *first_faults(fault for shard in manifest.shards for fault in _size_faults(folder, shard)),
        *shard_faults,
    ]
    pairs = sorted(dict.fromkeys(found), key=lambda pair: pair[0])
    faults = tuple(Fault(file=file, what=what) for file, what in pairs)
    return Report(folder=folder, manifest=manifest, faults=faults, patches=patches)


def _manifest_faults(folder: Path, manifest: Manifest) -> Faults:
    """Compare ``SHA256SUMS`` with the digests in the manifest, and with the digest of the manifest file."""
    if not is_plain(folder / SUMS_NAME):
        return  # _name_faults reports it
    try:
        sums = read_sums(folder / SUMS_NAME)
    except PatchSetError as error:
        yield SUMS_NAME, str(error).removeprefix(f"{folder / SUMS_NAME}: ")
        return
    # ``set_id`` does not cover card texts and the environment. Only this digest shows a flipped bit in these.
    expected = file_digests(manifest, derived=False) | {MANIFEST_NAME: file_digest(folder / MANIFEST_NAME)}
    exports = longest_exports(manifest)
    found = [name for name in exports if is_plain(folder / name)]
    if large := [name for name in found if (folder / name).stat().st_size > exports[name]]:
        yield large[0], f"the file is too large, expected at most {exports[large[0]]} bytes; {BY_EXPORT}"
        return
    expected |= {name: file_digest(folder / name) for name in found}
    for name in sorted(expected.keys() | sums.keys()):
        if name in exports and name not in expected:
            yield name, f"the file is missing, but {SUMS_NAME} lists this file; {BY_EXPORT}"
        elif sums.get(name) != expected.get(name):
            origin = "the file has" if name == MANIFEST_NAME or name in exports else "the manifest declares"
            what = f"the digest of {name} is {sums.get(name) or 'missing'}"
            what = f"{what}, but {origin} {expected.get(name) or 'no such file'}"
            yield SUMS_NAME, f"{what}; {BY_EXPORT if name in exports else _REMEDY}"


def _name_faults(folder: Path, manifest: Manifest) -> Faults:
    """Find missing files, files that are not regular, and files that a reader could take for files of this set."""
    expected = {MANIFEST_NAME, SUMS_NAME, *(file.name for file in manifest.files)}
    indexes = {dali_name(shard) for shard in manifest.shards}
    found = {path.name for path in entries(folder)}
    for name in sorted(expected - found):
        yield name, f"the file is missing; {BY_EXPORT if name == SUMS_NAME else _REMEDY}"
    for name in sorted(found - expected):
        if name.startswith((PART_PREFIX, BUILD_MARKER)):
            yield ascii(name)[1:-1], f"this file belongs to an unfinished build; {RUN_AGAIN}"
        elif name not in indexes and (name.startswith("patches") or name.endswith((".tar", ".parquet"))):
            yield ascii(name)[1:-1], "this file is not part of the set; remove the file"
    for name in sorted(expected & found):
        if not is_plain(folder / name):
            yield name, f"this is a folder, link or device, expected a regular file; {_REMEDY}"


def _size_faults(folder: Path, shard: Shard) -> Faults:
    for part in (shard, shard.parquet):
        path = folder / part.name
        if not is_plain(path):
            continue  # _name_faults reports it
        if (num_bytes := path.stat().st_size) != part.bytes:
            yield part.name, f"the file has {counted(num_bytes, 'byte')}, the manifest declares {part.bytes}"
        elif part is shard.parquet:
            try:
                if (rows := count_rows(path)) != shard.n:
                    yield part.name, f"the table has {counted(rows, 'row')}, the manifest declares {shard.n}"
            except PatchSetError as error:
                yield part.name, str(error).removeprefix(f"{path}: ")


def _shard_faults(
    folder: Path, manifest: Manifest, workers: int, on_patches: Callable[[int], None] | None
) -> tuple[list[tuple[str, str]], int]:
    faults: list[tuple[str, str]] = []
    patches, omitted, complete, root = 0, 0, True, hashlib.sha256()
    for shard, report in zip(manifest.shards, _reports(folder, manifest, workers), strict=True):
        faults += report.faults[: MAX_SHARD_FAULTS - len(faults)]
        omitted += len(report.faults)
        patches += report.patches
        complete = complete and bool(report.pixel_digests)
        root.update(report.pixel_digests)
        if on_patches is not None:
            on_patches(shard.n)
    if omitted := omitted - len(faults):
        faults.append((manifest.shards[-1].name, f"and {counted(omitted, 'more fault')} in the shards of this set"))
    if complete and root.hexdigest() != manifest.pixel_root:
        faults.append((MANIFEST_NAME, f"pixel_root is {manifest.pixel_root}, the tables require {root.hexdigest()}"))
    return faults, patches


def _reports(folder: Path, manifest: Manifest, workers: int) -> Iterator[ShardReport]:
    verify_one = partial(verify_shard, folder, image_format=manifest.encoding.format, size=manifest.size)
    workers = min(workers, len(manifest.shards))
    if workers <= 1:
        yield from map(verify_one, manifest.shards)
        return
    context = start_server("manifests.verify_shard")
    with explaining_start():
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent)
    try:
        with explaining_start(), starting_processes():
            reports = pool.map(verify_one, manifest.shards)
        yield from reports
    except BrokenProcessPool as error:
        what = "a verifying process was killed, possibly because memory ran out; verify the set with fewer --workers"
        raise PatchSetError(f"{folder}: {what}") from error
    finally:
        end_pool(pool)
