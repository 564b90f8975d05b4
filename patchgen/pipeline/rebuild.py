"""Read manifests, extend a set, and compare rebuilt patches with the tables of a set."""

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
from patchgen.pipeline.plan import plan_of
from patchgen.pipeline.shard import ShardTask
from patchgen.pipeline.shard_writer import make_maker
from patchgen.sources.photo import Photo


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
        advice = f"give the path of a {MANIFEST_NAME}"
        raise PatchSetError(f"{path}: the file cannot be read: {error.strerror}; {advice}") from error


def extend(folder: Path, n: int, photos: Sequence[Photo], *, workers: ShardExecutor) -> Manifest:
    """Add patches to the set in ``folder`` until the set has ``n``. Continue an extension that was interrupted."""
    manifest = read_manifest(folder)
    if n < manifest.n:
        what = f"the set has {counted(manifest.n, 'patch')} already, which is more than --n {n}"
        raise PatchgenError(f"{folder}: {what}; give a larger --n")
    return build(plan_of(manifest, photos, n=n), photos, folder, workers=workers, extend=True)


def regenerate(
    patchset: PatchSet, photos: Sequence[Photo], count: int, on_patch: Callable[[int], None]
) -> list[Fault]:
    """Build ``count`` random patches again. Return a fault for each digest that differs from the set's tables.

    ``verify`` compares the tables with the tars. This function shows that the patches were made from the photo with
    the recipe. ``on_patch(1)`` is called after each patch.
    """
    manifest = patchset.manifest
    context = plan_of(manifest, photos, n=manifest.n).context(photos, patchset.folder)
    chosen = sorted(random.SystemRandom().sample(range(manifest.n), min(count, manifest.n)))
    faults, name, columns = [], "", {}
    for index in chosen:
        shard = patchset.shard_of(index)
        if shard.parquet.name != name:
            name = shard.parquet.name
            columns = patchset.rows(shard)
        maker = make_maker(context, ShardTask(number=0, first_index=index, n=1))
        encoded, pixels = next(maker.encoded())[0]
        for key, value in {"pixels": pixels, "sha256": hashlib.sha256(encoded).digest()}.items():
            recorded = columns[key][index - shard.first_index]
            if value != recorded:
                digests = f"{value.hex()}, but the table has {recorded.hex()}"
                what = f"patch {index}: the rebuilt patch has the {key} digest {digests}"
                faults.append(Fault(file=name, what=what))
        on_patch(1)
    return faults
