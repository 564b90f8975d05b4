"""Find training images among the evaluation images, on which accuracy has no meaning."""

import logging
from collections.abc import Collection

from distill.data.labelled import LabelledImages
from distill.errors import DistillError
from manifests import PatchSet
from manifests.format.digest import DIGEST_BYTES
from manifests.format.schema import PACKED
from manifests.format.shard_table import read_pixel_digests
from manifests.support.counts import counted

logger = logging.getLogger(__name__)


def require_unseen(seen: Collection[bytes], data: LabelledImages, where: str) -> None:
    """Compare evaluation images with training images by ``seen``, the SHA-256 of the latter's pixels.

    Logs a line if some are the same.
    """
    common = sum(digest in seen for digest in data.digests)
    if not common:
        return
    found = f"{data.where}: {common} of {counted(len(data.digests), 'evaluation image')}"
    if common == len(data.digests):
        raise DistillError(
            f"{found} are training images of {where}, so that the figures would say nothing; "
            "give images that the network does not learn from"
        )
    logger.info(
        f"{found} are also training images of {where}: figures are too good by what the network remembers of them"
    )


def packed_digests(patchset: PatchSet) -> frozenset[bytes]:
    """Return the SHA-256 of the pixels of each patch of a set that was packed from images; none of other sets."""
    if patchset.manifest.recipe.get("name") != PACKED:
        return frozenset()
    tables = (read_pixel_digests(patchset.folder / shard.parquet.name, shard.n) for shard in patchset.manifest.shards)
    return frozenset(raw[at : at + DIGEST_BYTES] for raw in tables for at in range(0, len(raw), DIGEST_BYTES))
