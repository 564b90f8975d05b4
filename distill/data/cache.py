"""Open the patch set of a run: in GPU memory, in memory, in a cache file, or streamed.

The cache folder keeps decoded patch sets between runs. ``SET_ID.rgb`` contains the pixels, uint8 (n, size, size, 3).
``SET_ID.json`` is written after the pixels and contains their SHA-256. A run decodes only verified shards, and uses a
cached file only if the file has this SHA-256.
"""

import contextlib
import fcntl
import json
import logging
import math
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL
import torch

from distill.data.batches import Resident, Source
from distill.data.config import DataConfig
from distill.data.decode import Pixels, decode_into, file_memory, shape_of, shared_memory
from distill.data.sampler import Order, WindowOrder
from distill.data.stream import WINDOWS, Streamed
from distill.errors import DistillError
from distill.runtime.device import fits_gpu, free_memory
from distill.runtime.distributed import RunContext
from manifests import PatchSet, verify_shards
from manifests.format.digest import file_digest
from manifests.support import files
from manifests.support.console import counting, progress_bar
from manifests.support.counts import counted

MARGIN = 1 << 30  # bytes of disk and of memory that stay free
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_source(patchset: PatchSet, config: DataConfig, seed: int, context: RunContext) -> Iterator[Source]:
    """Verify a patch set and yield a source that returns the patches in the order that ``seed`` determines.

    ``config.cache`` selects where the decoded pixels are stored. Local rank 0 of each machine verifies and decodes
    the patch set. The other ranks of the machine map the decoded file into memory.
    """
    ranks = context.ranks
    cached = None if config.cache == "none" else _cached(patchset, cache_folder(config))
    place = _place(patchset, config, context, cached is not None)
    if ranks.any(place == "none"):  # one rank that streams makes all stream, because its order differs
        windows = WindowOrder([s.n for s in patchset.manifest.shards], config.batch_size, seed, config.window)
        patch_bytes = ranks.local_world_size * 3 * patchset.manifest.size**2  # in all processes
        needed, free = WINDOWS * windows.largest_window * patch_bytes, free_memory()
        if needed > free:
            found = f"streaming needs {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free"
            raise DistillError(f"data.window {config.window}: {found}; set a smaller data.window")
        with ranks.local_main_first():
            if not ranks.local_rank:
                _verify(patchset, config.workers)
        with contextlib.closing(Streamed(patchset, windows, config.workers, context)) as source:
            yield source
        return
    with ranks.local_main_first():
        if cached is None and ranks.local_rank:
            cached = _cached(patchset, cache_folder(config))
        if cached is None:
            _verify(patchset, config.workers)
            cached = _decoded(patchset, config, place)
    if place == "ram" and ranks.local_world_size == 1 and isinstance(cached, np.memmap):
        cached = np.array(cached)
    samples = torch.from_numpy(cached)
    del cached  # a copy on the GPU does not need it
    samples = samples.to(context.device) if place == "gpu" else samples
    yield Resident(samples=samples, order=Order(len(samples), config.batch_size, seed), context=context)


def cache_folder(config: DataConfig) -> Path:
    """Return the folder that keeps decoded patch sets between runs."""
    if config.cache_dir is not None:
        return config.cache_dir
    try:
        return files.user_cache() / "single-image-distillation"
    except ValueError as error:
        raise DistillError(f"decoded patches have no default folder: {error}; set data.cache_dir") from error


def _place(patchset: PatchSet, config: DataConfig, context: RunContext, cached: bool) -> str:
    """Return where each process of this machine stores the pixels: ``gpu``, ``ram``, ``disk`` or ``none``.

    ``cached`` is True if the cache folder already contains the decoded patch set.
    """
    needed, processes = math.prod(shape_of(patchset)), context.ranks.local_world_size
    problems: dict[str, Callable[[], str | None]] = {
        "gpu": lambda: None if fits_gpu(needed, context.device) else "no GPU has enough free memory",
        "ram": lambda: None if processes * needed + MARGIN < free_memory() else "the free memory is too small",
        "disk": lambda: None if cached else _disk_problem(cache_folder(config), needed),
        "none": lambda: None,
    }
    if config.cache == "auto":
        return next(place for place, problem in problems.items() if problem() is None)
    if (problem := problems[config.cache]()) is not None:
        found = f"cannot store {needed / 1e9:.1f} GB of decoded patches: {problem}"
        action = "set data.cache auto" + (", or another data.cache_dir" if config.cache == "disk" else "")
        raise DistillError(f"data.cache {config.cache}: {found}; {action}")
    return config.cache


def _cached(patchset: PatchSet, folder: Path) -> Pixels | None:
    """Map the decoded pixels of a patch set from the cache folder. Returns None if no valid file exists."""
    (path, note), num_bytes = _files(patchset, folder), math.prod(shape_of(patchset))
    try:
        if not (files.is_plain(path) and files.is_plain(note)) or path.stat().st_size != num_bytes:
            return None
        with progress_bar("hashing decoded patches (bytes)", num_bytes) as update:
            if json.loads(note.read_text()) != _note(file_digest(path, counting(update))):
                return None
    except (OSError, ValueError):
        return None
    content = f"{counted(len(patchset), 'patch')}, decoded by an earlier run and verified now"
    logger.info(f"set {patchset.manifest.set_id[:16]}: {content}: {path}")
    return np.memmap(path, dtype=np.uint8, mode="c", shape=shape_of(patchset))


def _files(patchset: PatchSet, folder: Path) -> tuple[Path, Path]:
    stem = patchset.manifest.set_id
    return folder / f"{stem}.rgb", folder / f"{stem}.json"


def _note(sha256: str) -> dict[str, str]:
    return {"sha256": sha256, "pillow": PIL.__version__}  # another Pillow may decode a JPEG to other pixels


def _decoded(patchset: PatchSet, config: DataConfig, place: str) -> Pixels:
    """Decode a patch set into a cache file. If this fails, decode into memory, or raise if ``place`` is disk."""
    folder = cache_folder(config)
    why = _disk_problem(folder, math.prod(shape_of(patchset)))
    if why is None:
        try:
            return _decode_to_file(patchset, config, folder)
        except OSError as error:
            why = f"{folder}: {error.strerror or error}"
    if place == "disk":
        raise DistillError(f"{why}; set data.cache_dir to another folder, or set data.cache none")
    logger.info(f"the decoded patches are not kept for the next run: {why}")
    pixels = shared_memory(shape_of(patchset))
    decode_into(pixels, patchset, config.workers)
    return pixels


def _disk_problem(folder: Path, needed: int) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder}: {error.strerror}"
    found = f"{folder}: the disk has {free / 1e9:.1f} GB free, but {(needed + MARGIN) / 1e9:.1f} GB are needed"
    return found if free < needed + MARGIN else None


def _decode_to_file(patchset: PatchSet, config: DataConfig, folder: Path) -> Pixels:
    path, note = _files(patchset, folder)
    _remove_abandoned_parts(folder)
    part = folder / f"{files.PART_PREFIX}{secrets.token_hex(8)}-{path.name}"
    try:
        pixels = file_memory(part, shape_of(patchset))
        with part.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            decode_into(pixels, patchset, config.workers)
            pixels.flush()
            digest = file_digest(part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    files.sync_directory(folder)
    files.write_atomically(note, json.dumps(_note(digest)).encode())
    return pixels


def _remove_abandoned_parts(folder: Path) -> None:
    """Remove the unfinished files of killed processes. Files that a running process writes are locked and remain."""
    for part in folder.glob(f"{files.PART_PREFIX}*"):
        with contextlib.suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _verify(patchset: PatchSet, workers: int) -> None:
    manifest = patchset.manifest
    with progress_bar("verifying (bytes)", sum(shard.bytes for shard in manifest.shards)) as update:
        verify_shards(patchset, threads=max(workers, 1), on_bytes=counting(update))
    content = f"{counted(manifest.n, 'patch')} of {manifest.size} px"
    logger.info(f"set {manifest.set_id[:16]}: {content} in {counted(len(manifest.shards), 'verified shard')}")
