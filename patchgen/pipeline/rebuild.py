"""Read manifests, extend a set, and rebuild single patches to compare them."""

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from manifests import Manifest, PatchSet
from manifests.errors import PatchSetError
from manifests.format.schema import MANIFEST_NAME, MAX_MANIFEST_BYTES, parse_manifest
from manifests.patchset import open_folder
from manifests.support.counts import counted
from manifests.support.files import read_regular_file
from manifests.verify import Fault
from patchgen.errors import PatchgenError
from patchgen.pipeline.build import ShardExecutor, build
from patchgen.pipeline.output_dir import ASIDE_NAME
from patchgen.pipeline.patch_maker import PatchMaker
from patchgen.pipeline.plan import plan_of
from patchgen.sources.photo import Photo


def read_manifest(path: Path | str) -> Manifest:
    """Read the manifest in a file or a set's folder, also one that an interrupted repair renamed there.

    A text is the URL of either.
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
        raise PatchSetError(f"{path}: cannot be read: {error.strerror}; give a {MANIFEST_NAME}") from error


def extend(folder: Path, n: int, photos: Sequence[Photo], *, workers: ShardExecutor) -> Manifest:
    """Make the set in ``folder`` ``n`` patches long, or finish an interrupted extension."""
    manifest = read_manifest(folder)
    if n < manifest.n:
        raise PatchgenError(f"{folder}: holds {counted(manifest.n, 'patch')} already, expected --n of at least that")
    return build(plan_of(manifest, photos, n=n), photos, folder, workers=workers, extend=True)


def regenerate(
    patchset: PatchSet, photos: Sequence[Photo], count: int, on_patch: Callable[[int], None]
) -> list[Fault]:
    """Build ``count`` patches again, chosen at random, and compare them with their rows in the tables.

    Together with ``verify`` this proves that a set was made from its photo as its recipe says. ``on_patch(1)`` is
    called after each patch.
    """
    manifest = patchset.manifest
    plan = plan_of(manifest, photos, n=manifest.n)
    pyramids = plan.pyramids(photos)
    chosen = sorted(random.SystemRandom().sample(range(manifest.n), min(count, manifest.n)))
    faults, name, columns = [], "", {}
    for index in chosen:
        shard = patchset.shard_of(index)
        if shard.parquet.name != name:
            name = shard.parquet.name
            columns = patchset.rows(shard)
        maker = PatchMaker(plan.recipe, pyramids, size=plan.size, seed=plan.seed, first_index=index, n=1)
        encoded, pixels = next(maker.encoded())[0]
        row = index - shard.first_index
        digests = {"pixels": pixels, "sha256": hashlib.sha256(encoded).digest()}
        for digest, value in digests.items():
            if value != columns[digest][row]:
                what = f"patch {index}: built again, its {digest} is {value.hex()}, its row says "
                faults.append(Fault(file=name, what=what + columns[digest][row].hex()))
        on_patch(1)
    return faults
