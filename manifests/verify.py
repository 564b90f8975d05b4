"""Verification of a whole set: every file, every member of every tar, every row of every table, every digest.

Nothing is trusted but SHA-256: a manifest must have the ``set_id`` of its content, a shard and a table the digests
the manifest names, a patch the digests its row names. All that is wrong is reported, not the first fault alone.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.export.finalize import BY_EXPORT, derived_faults, file_digests, longest_exports
from manifests.export.shard_index import dali_name
from manifests.format.checksums import SUMS_NAME, read_sums
from manifests.format.digest import file_digest, pixel_root
from manifests.format.schema import MANIFEST_NAME, Manifest, Shard
from manifests.format.shard_table import count_rows
from manifests.patchset import open_folder
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, is_plain
from manifests.support.processes import die_with_parent, end_pool, explaining_start, start_server, starting_processes
from manifests.support.system_files import entries
from manifests.verify_shard import Faults, ShardReport, first_faults, verify_shard

BUILD_MARKER = ".patchgen-build"
MAX_TOLD = 1000
"""Faults of all shards together that are kept; of the rest only their number is."""
AHEAD = 4
"""Shards a process that may be verified before the first of them is looked at."""
PATIENCE_SECONDS, SLOWEST_BYTES_PER_SECOND = 600.0, 1e6
"""Longest that the verifying of a shard may take: so long, and the time that its bytes take at this rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong: in which file, and what was observed and expected."""

    file: str
    what: str

    @property
    def mended_by_export(self) -> bool:
        """Whether ``patchgen export`` makes it good."""
        return self.what.endswith(BY_EXPORT)

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a verification looked at and found. ``patches`` counts those whose own digests were computed."""

    folder: Path
    manifest: Manifest | None
    faults: tuple[Fault, ...]
    patches: int


def verify(
    folder: Path, *, fast: bool = False, workers: int = 1, on_patches: Callable[[int], None] | None = None
) -> Report:
    """Verify the set in ``folder``; ``fast`` looks at names, sizes and counts only, and reads no shard.

    Digests of pixels are computed where the format is lossless; for JPEG only building a patch again proves them.
    ``on_patches`` hears how many patches were looked at since its last call.

    Raises:
        PatchSetError: a worker process was killed.
    """
    try:
        manifest = open_folder(folder).manifest
    except PatchSetError as error:
        what = str(error).removeprefix(f"{folder / MANIFEST_NAME}: ").removeprefix(f"{folder}: ")
        return Report(folder=folder, manifest=None, faults=(Fault(file=MANIFEST_NAME, what=what),), patches=0)
    found = [
        *first_faults(_manifest_faults(folder, manifest)),
        *first_faults(_name_faults(folder, manifest)),
        *_export_faults(folder, manifest),
        *first_faults(fault for shard in manifest.shards for fault in _size_faults(folder, shard)),
    ]
    patches = 0
    if not fast:
        tally = _Tally()
        root = pixel_root(tally.digests(_verify_shards(folder, manifest, workers), on_patches))
        patches = tally.patches
        found += tally.told()
        if tally.complete and root != manifest.pixel_root:
            found.append((MANIFEST_NAME, f"pixel_root is {manifest.pixel_root}, the tables give {root}"))
    faults = [Fault(file=file, what=what) for file, what in dict.fromkeys(found)]
    faults.sort(key=lambda fault: fault.file)
    return Report(folder=folder, manifest=manifest, faults=tuple(faults), patches=patches)


def _manifest_faults(folder: Path, manifest: Manifest) -> Faults:
    """``SHA256SUMS`` against the manifest, and the manifest's own bytes against it."""
    if not is_plain(folder / SUMS_NAME):
        return  # reported as a name
    try:
        sums = read_sums(folder / SUMS_NAME)
    except PatchSetError as error:
        yield SUMS_NAME, str(error).removeprefix(f"{folder / SUMS_NAME}: ")
        return
    # Card texts and the environment enter no set_id, so a flipped bit there shows here alone.
    expected = file_digests(manifest, derived=False) | {MANIFEST_NAME: file_digest(folder / MANIFEST_NAME)}
    exports = longest_exports(manifest)
    for name, most in exports.items():
        if is_plain(folder / name):
            if (size := (folder / name).stat().st_size) > most:
                yield name, f"{size} bytes, expected at most {most}; {BY_EXPORT}"
                return
            expected[name] = file_digest(folder / name)
    for name in sorted(expected.keys() | sums.keys()):
        if name in exports and name not in expected:
            yield name, f"is missing, {SUMS_NAME} names it; {BY_EXPORT}"
        elif sums.get(name) != expected.get(name):
            origin = "the file has" if name == MANIFEST_NAME or name in exports else "the manifest says"
            said = f"names {name} with {sums.get(name) or 'no digest'}, {origin} {expected.get(name) or 'none'}"
            yield SUMS_NAME, f"{said}; {BY_EXPORT}" if name in exports else said


def _export_faults(folder: Path, manifest: Manifest) -> Faults:
    """Files for other tools: a set need not have them, but those it has must be of this set."""
    for name, what in derived_faults(folder, manifest):
        if (folder / name).exists() or (folder / name).is_symlink():
            yield name, what


def _name_faults(folder: Path, manifest: Manifest) -> Faults:
    """Files that are missing, or look like a part of a set and are none of this one."""
    expected = {MANIFEST_NAME, SUMS_NAME}
    for shard in manifest.shards:
        expected |= {shard.name, shard.parquet.name}
    indexes = {dali_name(shard) for shard in manifest.shards}
    found = {path.name for path in entries(folder)}
    for name in sorted(expected - found):
        again = BY_EXPORT if name == SUMS_NAME else "rebuild it or copy it again from a good set"
        yield name, f"is missing; {again}"
    for name in sorted(found - expected):
        if name.startswith((PART_PREFIX, BUILD_MARKER)):
            yield ascii(name)[1:-1], "belongs to a build that is under way or was killed"
        elif name not in indexes and (name.startswith("patches") or name.endswith((".tar", ".parquet"))):
            yield ascii(name)[1:-1], "is no part of this set; remove it"
    for name in sorted(expected & found):
        if not is_plain(folder / name):
            yield name, "is no regular file, expected one, and no link"


def _size_faults(folder: Path, shard: Shard) -> Faults:
    for name, expected in ((shard.name, shard.bytes), (shard.parquet.name, shard.parquet.bytes)):
        path = folder / name
        if not is_plain(path):
            continue  # reported as a name
        if (size := path.stat().st_size) != expected:
            yield name, f"{counted(size, 'byte')}, the manifest says {expected}"
        elif name == shard.parquet.name:
            try:
                rows = count_rows(path)
            except PatchSetError as error:
                yield name, str(error).removeprefix(f"{path}: ")
                continue
            if rows != shard.n:
                yield name, f"{counted(rows, 'row')}, the manifest says {counted(shard.n, 'patch')}"


@dataclasses.dataclass(kw_only=True)
class _Tally:
    """What is kept of shards' reports, which hold 32 bytes a patch: ``complete`` if every table could be read."""

    faults: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    more: int = 0
    last: str = ""
    patches: int = 0
    complete: bool = True

    def told(self) -> list[tuple[str, str]]:
        """The faults that are kept, and how many are not, in whose last file they were found."""
        rest = (
            [(self.last, f"and {counted(self.more, 'more fault')} in the shards before it and in it")]
            if self.more
            else []
        )
        return self.faults + rest

    def digests(
        self, reports: Iterable[tuple[Shard, ShardReport]], on_patches: Callable[[int], None] | None
    ) -> Iterator[bytes]:
        """The pixel digests of each report, which is then forgotten."""
        for shard, report in reports:
            room = MAX_TOLD - len(self.faults)
            self.faults += report.faults[:room]
            if left := report.faults[room:]:
                self.more, self.last = self.more + len(left), left[-1][0]
            self.patches += report.patches
            self.complete = self.complete and bool(report.pixel_digests)
            if on_patches is not None:
                on_patches(shard.n)
            yield report.pixel_digests


def _verify_shards(folder: Path, manifest: Manifest, workers: int) -> Iterator[tuple[Shard, ShardReport]]:
    """A report of each shard, in their order; in several processes a few are under way or waiting at a time."""
    shards = manifest.shards
    arguments = (manifest.encoding.format, manifest.size)
    workers = min(workers, len(shards))
    if workers <= 1:
        for shard in shards:
            yield shard, verify_shard(folder, shard, *arguments)
        return
    context = start_server("manifests.verify_shard")
    with explaining_start():
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent)
    waiting: deque[tuple[Shard, Future[ShardReport]]] = deque()
    try:
        for shard in shards:
            with explaining_start(), starting_processes():
                waiting.append((shard, pool.submit(verify_shard, folder, shard, *arguments)))
            if len(waiting) == AHEAD * workers:
                yield _ended(folder, waiting)
        while waiting:
            yield _ended(folder, waiting)
    except BrokenProcessPool as error:
        raise PatchSetError(
            f"{folder}: a verifying process was killed, perhaps for memory; verify it again"
        ) from error
    finally:
        end_pool(pool)


def _ended(folder: Path, waiting: deque[tuple[Shard, Future[ShardReport]]]) -> tuple[Shard, ShardReport]:
    shard, future = waiting.popleft()
    seconds = int(PATIENCE_SECONDS + shard.bytes / SLOWEST_BYTES_PER_SECOND)
    for _ in range(seconds):  # counted, for this program may be suspended
        if wait([future], timeout=1).done:
            return shard, future.result()
    raise PatchSetError(
        f"{folder / shard.name}: was not verified in {seconds} s; see whether the disk answers, and verify it again"
    )
