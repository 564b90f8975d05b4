"""Decoded sets: one file of raw pixels for each set, kept between runs, and where a run holds its pixels.

``SET_ID.rgb`` in the cache folder is uint8 (n, size, size, 3); ``SET_ID.json``, written after it, has its SHA-256.
The file is decoded from verified shards, and hashed again before it is used.
"""

import fcntl
import json
import logging
import math
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from distill.runtime.context import RunContext
from distill.runtime.memory import fits_gpu, free_memory
from manifests import PatchSet, verify_shards
from manifests.format.digest import file_digest
from manifests.support.console import counting, progress_bar
from manifests.support.counts import counted
from manifests.support.files import (
    PART_PREFIX,
    describe_os_error,
    is_plain,
    sync_directory,
    user_cache,
    write_atomically,
)

MARGIN = 1 << 30  # bytes of disk and of memory that stay free
logger = logging.getLogger(__name__)


@contextmanager
def open_source(patchset: PatchSet, config: DataConfig, seed: int, context: RunContext) -> Iterator[Source]:
    """Verify a set and yield its patches in the order of ``seed``, held where ``config.cache`` says, or streamed.

    Local rank 0 of each machine verifies and decodes the set; the other ranks map the file that it kept.
    """
    source = _open(patchset, config, seed, context)
    try:
        yield source
    finally:
        source.close()


def _open(patchset: PatchSet, config: DataConfig, seed: int, context: RunContext) -> Source:
    ranks = context.ranks
    cached = None if config.cache == "none" else _cached(patchset, cache_folder(config))
    place = _place(patchset, config, context, cached is not None)
    if ranks.any(place == "none"):  # one rank that streams makes all stream, because its order differs
        windows = WindowOrder([s.n for s in patchset.manifest.shards], config.batch_size, seed, config.window)
        _require_window(windows, config.window, ranks.local_world_size * 3 * patchset.manifest.size**2)
        with ranks.local_main_first():
            if not ranks.local_rank:
                _verify(patchset, config)
        return Streamed(patchset, windows, config.workers, context)
    with ranks.local_main_first():
        if cached is None and ranks.local_rank:
            cached = _cached(patchset, cache_folder(config))
        if cached is None:
            _verify(patchset, config)
            cached = _decoded(patchset, config, cache_folder(config), place)
    if place == "ram" and ranks.local_world_size == 1 and isinstance(cached, np.memmap):
        cached = np.array(cached)
    samples = torch.from_numpy(cached)
    samples = samples.to(context.device) if place == "gpu" else samples
    return Resident(samples=samples, order=Order(len(samples), config.batch_size, seed), context=context)


def _require_window(order: WindowOrder, window: int, patch_bytes: int) -> None:
    """Check that all processes have memory for their windows."""
    needed, free = WINDOWS * order.largest_window * patch_bytes, free_memory()
    if needed > free:
        raise DistillError(
            f"data.window {window}: patches of so many shards take {needed / 1e9:.1f} GB, decoded, "
            f"{free / 1e9:.1f} GB of memory are free; lower it, or use a set of smaller shards"
        )


def cache_folder(config: DataConfig) -> Path:
    """Return the folder of decoded sets."""
    if config.cache_dir is not None:
        return config.cache_dir
    try:
        return user_cache() / "single-image-distillation"
    except ValueError as error:
        raise DistillError(f"{error}, so there is no place to keep decoded patches in; set data.cache_dir") from error


def _place(patchset: PatchSet, config: DataConfig, context: RunContext, cached: bool) -> str:
    """Return ``gpu``, ``ram``, ``disk`` or ``none``: where every process of this machine holds the pixels."""
    needed, processes = math.prod(shape_of(patchset)), context.ranks.local_world_size
    problems: dict[str, Callable[[], str | None]] = {
        "gpu": lambda: None if fits_gpu(needed, context.device) else "no GPU, or too little memory on it,",
        "ram": lambda: None if processes * needed + MARGIN < free_memory() else "too little memory",
        "disk": lambda: None if cached else _disk_problem(cache_folder(config), needed),
        "none": lambda: None,
    }
    if config.cache == "auto":
        return next(place for place, problem in problems.items() if problem() is None)
    if (problem := problems[config.cache]()) is not None:
        raise DistillError(
            f"data.cache {config.cache}: {problem} for {needed / 1e9:.1f} GB of decoded patches; "
            "use auto, or another folder with data.cache_dir"
        )
    return config.cache


def _cached(patchset: PatchSet, folder: Path) -> Pixels | None:
    """Map the file of a set that was decoded before; None if there is none, or it is damaged."""
    path, note = _files(patchset, folder)
    try:
        if not (is_plain(path) and is_plain(note)) or path.stat().st_size != math.prod(shape_of(patchset)):
            return None
        held = json.loads(note.read_text())
        with progress_bar("hashing decoded patches (bytes)", path.stat().st_size) as update:
            if not isinstance(held, dict) or held.get("pillow") != PIL.__version__:
                return None  # another version may decode a JPEG to other pixels
            if file_digest(path, counting(update)) != held.get("sha256"):
                return None
    except (OSError, ValueError):
        return None
    logger.info(
        f"set {patchset.manifest.set_id[:16]}: {counted(patchset.manifest.n, 'patch')}, decoded before: {path}"
    )
    return np.memmap(path, dtype=np.uint8, mode="c", shape=shape_of(patchset))


def _files(patchset: PatchSet, folder: Path) -> tuple[Path, Path]:
    stem = patchset.manifest.set_id
    return folder / f"{stem}.rgb", folder / f"{stem}.json"


def _decoded(patchset: PatchSet, config: DataConfig, folder: Path, place: str) -> Pixels:
    """Decode a verified set into its cache file or, if the disk is too full, into memory."""
    needed = math.prod(shape_of(patchset))
    why = _disk_problem(folder, needed)
    if why is None:
        try:
            return _decode_to_file(patchset, config, folder)
        except OSError as error:
            why = describe_os_error(error, folder)
    if place == "disk":
        raise DistillError(f"{why}; choose another folder with data.cache_dir, or data.cache none")
    logger.info(f"the decoded patches are not kept for the next run: {why}")
    pixels = shared_memory(shape_of(patchset))
    _decode(pixels, patchset, config)
    return pixels


def _disk_problem(folder: Path, needed: int) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if free < needed + MARGIN:
        return f"{folder}: {free / 1e9:.1f} GB free, {(needed + MARGIN) / 1e9:.1f} GB needed"
    return None


def _decode_to_file(patchset: PatchSet, config: DataConfig, folder: Path) -> Pixels:
    path, note = _files(patchset, folder)
    _remove_abandoned_parts(folder)
    part = folder / f"{PART_PREFIX}{secrets.token_hex(8)}-{path.name}"
    try:
        pixels = file_memory(part, shape_of(patchset))
        with part.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            _decode(pixels, patchset, config)
            pixels.flush()
            digest = file_digest(part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(folder)
    write_atomically(note, json.dumps({"sha256": digest, "pillow": PIL.__version__}).encode())
    return pixels


def _remove_abandoned_parts(folder: Path) -> None:
    """Remove unfinished files of killed processes; a file that a process still writes is locked."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _decode(pixels: Pixels, patchset: PatchSet, config: DataConfig) -> None:
    with progress_bar("decoding patches", patchset.manifest.n) as update:
        decode_into(pixels, patchset, config.workers, counting(update))


def _verify(patchset: PatchSet, config: DataConfig) -> None:
    manifest = patchset.manifest
    with progress_bar("verifying (bytes)", sum(shard.bytes for shard in manifest.shards)) as update:
        verify_shards(patchset, threads=max(config.workers, 1), on_bytes=counting(update))
    logger.info(
        f"set {manifest.set_id[:16]}: {counted(manifest.n, 'patch')} of {manifest.size} px "
        f"in {counted(len(manifest.shards), 'verified shard')}"
    )
