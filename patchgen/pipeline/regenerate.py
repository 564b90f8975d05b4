"""Build random patches of a set again, and compare the patches with the tables of the set."""

import functools
import hashlib
import random
from collections.abc import Callable, Sequence

from manifests import PatchSet
from manifests.verify import Fault
from patchgen.pipeline.plan import plan_of
from patchgen.pipeline.shard import ShardTask
from patchgen.pipeline.shard_writer import make_maker
from patchgen.sources.photo import Photo


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
    faults, rows = [], functools.lru_cache(maxsize=1)(patchset.rows)
    for index in chosen:
        shard = patchset.shard_of(index)
        columns = rows(shard)
        maker = make_maker(context, ShardTask(number=0, first_index=index, n=1))
        encoded, pixels = next(maker.encoded())[0]
        for key, value in {"pixels": pixels, "sha256": hashlib.sha256(encoded).digest()}.items():
            recorded = columns[key][index - shard.first_index]
            if value != recorded:
                digests = f"{value.hex()}, but the table has {recorded.hex()}"
                what = f"patch {index}: the rebuilt patch has the {key} digest {digests}"
                faults.append(Fault(file=shard.parquet.name, what=what))
        on_patch(1)
    return faults
