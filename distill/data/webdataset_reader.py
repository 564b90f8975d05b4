"""WebDataset samples from local tars, opened as plain files: a name is never used as a URL or a command."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_expander


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar in order: raw bytes by extension, ``__key__``, and ``__url__``, the tar's path."""
    with path.open("rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}]))
