"""Patches: verified shards in, one uint8 array out, decoded once by several processes that all write into it."""

import contextlib
import mmap
import os
import re
import signal
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

from distill.data.tars import read_samples
from distill.errors import DistillError
from manifests import PatchSet
from manifests.errors import PatchSetError
from manifests.images import decode_patch
from manifests.processes import usable_cores

_CHUNK, _CHUNK_BYTES = 512, 32 << 20

Pixels = npt.NDArray[np.uint8]


def ignore_signals(worker: int) -> None:
    """For a decoding process: Ctrl-C and SIGTERM are heard by the process that started it, which ends it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def shape_of(patchset: PatchSet) -> tuple[int, int, int, int]:
    """(n, size, size, 3)."""
    manifest = patchset.manifest
    return manifest.n, manifest.size, manifest.size, 3


def chunk_of(size: int) -> int:
    """How many patches of ``size`` px a process decodes before it hands them on: 512, or 32 MB of them."""
    return max(1, min(_CHUNK, _CHUNK_BYTES // (3 * size**2)))


def bytes_of(patchset: PatchSet) -> int:
    """Bytes of all patches, decoded."""
    n, height, width, channels = shape_of(patchset)
    return n * height * width * channels


def shared_memory(patchset: PatchSet) -> Pixels:
    """An empty array for a set, in memory that processes forked from this one share."""
    return np.frombuffer(mmap.mmap(-1, bytes_of(patchset)), dtype=np.uint8).reshape(shape_of(patchset))


def file_memory(path: Path, patchset: PatchSet) -> np.memmap[Any, np.dtype[np.uint8]]:
    """An empty array for a set, mapped to a new file that processes forked from this one share.

    Raises:
        OSError: the disk has no room for it. It is taken now: a full disk under a mapping would kill the process.
    """
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, bytes_of(patchset))
        else:  # macOS
            file.truncate(bytes_of(patchset))
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape_of(patchset))


def decode_into(images: Pixels, patchset: PatchSet, workers: int, on_patches: Callable[[int], None]) -> None:
    """Decode every patch of a verified set: row i of ``images``, from one of the two functions above, gets patch i.

    ``on_patches`` hears how many patches each step added.

    Raises:
        DistillError: a member is not the image the manifest promises, or a patch is missing or there twice.
    """
    manifest = patchset.manifest
    seen = torch.zeros(manifest.n, dtype=torch.bool)
    for indices in _chunks(patchset, images, min(workers, len(manifest.shards), usable_cores())):
        if len(indices.unique()) < len(indices) or bool(seen[indices].any()):
            raise DistillError(f"{patchset.folder}: a member's key stands twice; get the set again")
        seen[indices] = True
        on_patches(len(indices))
    if not bool(seen.all()):
        missing = int((~seen).nonzero()[0])
        raise DistillError(f"{patchset.folder}: patch {missing} is in no shard; get the set again")


def _chunks(patchset: PatchSet, images: Pixels, workers: int) -> Iterator[Tensor]:
    """Indices (≤ 512,) of the patches that a process has just written into ``images``."""
    manifest = patchset.manifest
    paths = [patchset.shard_path(shard) for shard in manifest.shards]
    decode = partial(decode_sample, span=range(manifest.n), image_format=manifest.encoding.format, size=manifest.size)
    store = partial(_store, images=images)
    pipeline = wds.DataPipeline(
        partial(read_samples, paths), wds.map(decode), wds.batched(chunk_of(manifest.size), collation_fn=store)
    )
    loader = DataLoader(
        pipeline,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=ignore_signals,
        multiprocessing_context="fork" if workers else None,  # forked ones share the array
    )
    with tar_errors(patchset), ended(iter(loader)) as chunks:
        for chunk in chunks:
            if isinstance(chunk, str):
                raise DistillError(f"{chunk}; get the set again")
            yield chunk


@contextlib.contextmanager
def ended(chunks: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """A data loader's iterator; its processes end with the block, for an error keeps it and they ignore SIGTERM."""
    try:
        yield chunks
    finally:
        getattr(chunks, "_shutdown_workers", lambda: None)()  # there is none without processes


@contextlib.contextmanager
def tar_errors(patchset: PatchSet) -> Iterator[None]:
    """Turn what reading a set's tars may raise into one line.

    Raises:
        DistillError: verified bytes are yet no good tar, or a process that read one was killed.
    """
    try:
        yield
    except (tarfile.TarError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise DistillError(f"{patchset.folder}: a shard is no good tar: {reason[0]}") from error
    except RuntimeError as error:  # torch's word for it
        raise DistillError(f"{patchset.folder}: a decoding process ended: {str(error).splitlines()[0]}") from error


def decode_sample(sample: dict[str, Any], span: range, image_format: str, size: int) -> tuple[int, Pixels] | str:
    """One patch and its index, which must be in ``span``, or what is wrong with it.

    It is returned, for an error raised in another process would lose its one line.
    """
    where = f"{sample.get('__url__')}: member {sample.get('__key__')}"
    fields = [name for name in sample if not name.startswith("__")]
    if fields != [image_format]:
        return f"{where}: is .{' and .'.join(fields)}, the manifest promises one .{image_format}"
    if not re.fullmatch(r"[0-9]{9,10}", str(sample["__key__"])) or int(sample["__key__"]) not in span:
        return f"{where}: the key is no index of this set"
    try:
        return int(sample["__key__"]), decode_patch(sample[image_format], where, size, image_format)
    except PatchSetError as error:
        return str(error)


def _store(samples: list[tuple[int, Pixels] | str], images: Pixels) -> Tensor | str:
    good = [sample for sample in samples if not isinstance(sample, str)]
    if len(good) < len(samples):
        return next(sample for sample in samples if isinstance(sample, str))
    for index, image in good:
        images[index] = image
    return torch.tensor([index for index, _ in good])
