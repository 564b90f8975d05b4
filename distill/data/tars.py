"""WebDataset samples from local tars, opened as plain files: no name is ever taken for a URL or a command."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander


def read_samples(paths: Iterable[Path], *, split: bool = True) -> Iterator[dict[str, Any]]:
    """The samples of tars, in order: raw bytes by extension, ``__key__``, and ``__url__``, the tar's path.

    In a process of a data loader, only that process's share of the tars, unless ``split`` is false.

    Raises:
        tarfile.TarError, ValueError, OSError: a tar is damaged or holds a name twice.
    """
    share = (wds.split_by_worker,) if split else ()
    stages = (wds.SimpleShardList([str(path) for path in paths]), *share, _open)
    yield from group_by_keys(tar_file_expander(wds.DataPipeline(*stages)))


def _open(shards: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        with Path(shard["url"]).open("rb") as stream:
            yield {**shard, "stream": stream}
