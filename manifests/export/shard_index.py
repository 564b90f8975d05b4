"""Write shard indexes for two other programs: ``index.json`` for wids, and one ``.idx`` file per shard for DALI.

Sources: the package ``wids`` ("wids-shard-index-v1"); NVIDIA DALI's ``wds2idx`` ("v1.2").
"""

import json
from collections.abc import Iterator
from pathlib import Path

from manifests.errors import corrupt
from manifests.format.schema import Manifest, Shard, patch_key
from manifests.format.shard_table import read_places
from manifests.format.tar import BLOCK
from manifests.patchset import PatchSet
from manifests.support.counts import counted

INDEX_NAME = "index.json"
MAX_DALI_LINE = 80  # maximum bytes of a line: an extension, two numbers of up to 16 digits, and a name


def make_index(manifest: Manifest) -> bytes:
    """Return the bytes of ``index.json``. The file lists name, number of patches and size of every shard."""
    value = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": f"patchset-{manifest.set_id[:16]}",
        "shardlist": [{"url": shard.name, "nsamples": shard.n, "filesize": shard.bytes} for shard in manifest.shards],
    }
    return (json.dumps(value, indent=1) + "\n").encode()


def dali_name(shard: Shard) -> str:
    """Return the name of the file with the DALI index of a shard."""
    return str(Path(shard.name).with_suffix(".idx"))


def make_dali_index(patchset: PatchSet, shard: Shard) -> Iterator[bytes]:
    """Read the table of a shard, and yield the lines of the DALI index of this shard."""
    path = patchset.folder / shard.parquet.name
    suffix = patchset.manifest.encoding.format
    offsets, sizes = read_places(path, shard.n)
    yield f"v1.2 {shard.n}\n".encode()
    for row, (offset, size) in enumerate(zip(offsets.tolist(), sizes.tolist(), strict=True)):
        if not BLOCK <= offset <= offset + size <= shard.bytes:
            span = f"{counted(size, 'byte')} at offset {offset}"
            raise corrupt(path, f"row {row} declares {span}, but the tar has {counted(shard.bytes, 'byte')}")
        name = f"{patch_key(shard.first_index + row)}.{suffix}"
        yield f"{suffix} {offset} {size} {name}\n".encode()
