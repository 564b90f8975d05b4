"""Patches: verified shards in, one resident uint8 tensor out, decoded once by several processes."""

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import DataLoader

from distill.data.config import DataConfig
from distill.data.tars import read_samples
from distill.errors import DistillError
from manifests import PatchSet
from manifests.images import decode_patch

_CHUNK = 512


def load_patches(patchset: PatchSet, config: DataConfig, on_patches: Callable[[int], None]) -> Tensor:
    """Every patch of a verified set: uint8 of shape (n, size, size, 3), row i holding patch i.

    ``on_patches`` hears how many patches each step added.

    Raises:
        DistillError: the set does not fit in memory, or a member is not the image the manifest promises.
    """
    manifest = patchset.manifest
    shape = (manifest.n, manifest.size, manifest.size, 3)
    _require_memory(int(np.prod(shape, dtype=np.int64)))
    images = torch.empty(shape, dtype=torch.uint8)
    seen = torch.zeros(manifest.n, dtype=torch.bool)
    for indices, chunk in _chunks(patchset, min(config.workers, len(manifest.shards), os.cpu_count() or 1)):
        twice = len(indices.unique()) < len(indices)
        if twice or int(indices.max()) >= manifest.n or bool(seen[indices].any()):
            raise DistillError(f"{patchset.folder}: a member's key is no index of this set, or stands twice")
        seen[indices] = True
        images[indices] = chunk
        on_patches(len(indices))
    if not bool(seen.all()):
        missing = int((~seen).nonzero()[0])
        raise DistillError(f"{patchset.folder}: patch {missing} is in no shard; get the set again")
    return images


def _require_memory(needed: int) -> None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return  # only Linux says how much it could give
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if needed > available:
        raise DistillError(
            f"the patches take {needed / 1e9:.1f} GB of memory decoded, {available / 1e9:.1f} GB are free; "
            "use a smaller set or a larger machine"
        )


def _chunks(patchset: PatchSet, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    manifest = patchset.manifest
    paths = [patchset.shard_path(shard) for shard in manifest.shards]
    decode = partial(_decode_sample, image_format=manifest.encoding.format, size=manifest.size)
    pipeline = wds.DataPipeline(
        partial(read_samples, paths), wds.map(decode), wds.batched(_CHUNK, collation_fn=_collate)
    )
    try:
        for chunk in DataLoader(pipeline, batch_size=None, num_workers=workers):
            if isinstance(chunk, str):
                raise DistillError(f"{chunk}; get the set again")
            yield chunk
    except (tarfile.TarError, ValueError, OSError) as error:  # verified bytes that are yet no good tar
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise DistillError(f"{patchset.folder}: a shard is no good tar: {reason[0]}") from error


def _decode_sample(sample: dict[str, Any], image_format: str, size: int) -> tuple[int, npt.NDArray[np.uint8]] | str:
    """One patch and its index, or what is wrong with it: an error raised here would lose its one line."""
    where = f"{sample.get('__url__')}: member {sample.get('__key__')}"
    fields = [name for name in sample if not name.startswith("__")]
    if fields != [image_format]:
        return f"{where}: is .{' and .'.join(fields)}, the manifest promises one .{image_format}"
    if not re.fullmatch(r"[0-9]{9,10}", str(sample["__key__"])):
        return f"{where}: the key is no index"
    try:
        return int(sample["__key__"]), decode_patch(sample[image_format], where, size, image_format)
    except DistillError as error:
        return str(error)


def _collate(samples: list[tuple[int, npt.NDArray[np.uint8]] | str]) -> tuple[Tensor, Tensor] | str:
    good = [sample for sample in samples if not isinstance(sample, str)]
    if len(good) < len(samples):
        return next(sample for sample in samples if isinstance(sample, str))
    indices, images = zip(*good, strict=True)
    return torch.tensor(indices), torch.from_numpy(np.stack(images))
