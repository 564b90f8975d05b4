"""Decoded sets: one file of raw pixels a set, kept between runs, and where a run holds its pixels.

``SET_ID.rgb`` in the cache folder is uint8 (n, size, size, 3); ``SET_ID.json``, written after it, has its SHA-256. A
file is believed only after it was hashed again, and was decoded from shards that were verified.
"""

import fcntl
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from distill.data.batches import Resident, Source, fits_gpu
from distill.data.config import DataConfig
from distill.data.decode import bytes_of, decode_into, file_memory, shape_of, shared_memory
from distill.data.sampler import Order, WindowOrder
from distill.data.stream import Streamed
from distill.data.workers import Pixels
from distill.errors import DistillError, Say
from distill.runtime.distributed import ALONE, Ranks
from manifests import PatchSet, verify_shards
from manifests.format.digest import file_digest
from manifests.support.console import counting, progress_bar
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, describe_os_error, is_plain, sync_directory, write_atomically
from manifests.support.home import user_cache

MARGIN = 1 << 30
"""Bytes of disk and of memory that stay free."""
_WINDOWS = 3


@contextmanager
def open_source(
    patchset: PatchSet, config: DataConfig, seed: int, device: torch.device, say: Say, ranks: Ranks = ALONE
) -> Iterator[Source]:
    """A verified set in the order of ``seed``: its patches held where ``config.cache`` says, or streamed.

    One process of each machine verifies and decodes it; what that one keeps on disk, the others hash and map.

    Raises:
        DistillError: it does not fit there, a member is not the image the manifest promises, or a process that
            reads was killed.
        PatchSetError: a shard is not what the manifest says.
    """
    source = _source(patchset, config, seed, device, say, ranks)
    try:
        yield source
    finally:
        source.close()


def _source(
    patchset: PatchSet, config: DataConfig, seed: int, device: torch.device, say: Say, ranks: Ranks
) -> Source:
    cached = None if config.cache == "none" else _cached(patchset, cache_folder(config), say)
    place = _place(patchset, config, device, cached is not None, ranks.here)
    if ranks.any(place == "none"):  # then for all, for its order is another
        _require_window(patchset, config.window, ranks.here)
        with ranks.in_turn():
            if not ranks.local:
                _verify(patchset, config, say)
        windows = WindowOrder([s.n for s in patchset.manifest.shards], config.batch_size, seed, config.window)
        return Streamed(patchset, windows, config.workers, device, ranks)
    with ranks.in_turn():
        if cached is None and ranks.local:
            cached = _cached(patchset, cache_folder(config), say)
        if cached is None:
            _verify(patchset, config, say)
            cached = _decoded(patchset, config, cache_folder(config), place, say)
    samples = _resident(cached, "disk" if place == "ram" and ranks.here > 1 else place, device)
    order = Order(len(samples), config.batch_size, seed)
    return Resident(samples=samples, order=order, device=device, ranks=ranks)


def _require_window(patchset: PatchSet, window: int, here: int) -> None:
    """Check that the window in use, the one that is ready and the one being filled have room in each of ``here``.

    Raises:
        DistillError: they do not.
    """
    manifest = patchset.manifest
    most = sum(sorted((shard.n for shard in manifest.shards), reverse=True)[:window])
    needed, free = here * _WINDOWS * most * 3 * manifest.size**2, free_memory()
    if needed > free:
        raise DistillError(
            f"data.window {window}: patches of so many shards take {needed / 1e9:.1f} GB, decoded, "
            f"{free / 1e9:.1f} GB of memory are free; lower it, or use a set of smaller shards"
        )


def _resident(pixels: Pixels, place: str, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.array(pixels) if place == "ram" and isinstance(pixels, np.memmap) else pixels)
    return tensor.to(device) if place == "gpu" else tensor


def cache_folder(config: DataConfig) -> Path:
    """Where decoded sets are kept.

    Raises:
        DistillError: nothing says where.
    """
    if config.cache_dir is not None:
        return config.cache_dir
    try:
        return user_cache() / "single-image-distillation"
    except ValueError as error:
        raise DistillError(f"{error}, so there is no place to keep decoded patches in; set data.cache_dir") from error


def _place(patchset: PatchSet, config: DataConfig, device: torch.device, cached: bool, here: int) -> str:
    """Which of ``gpu``, ``ram``, ``disk`` and ``none`` has the pixels, for each of ``here`` processes.

    Raises:
        DistillError: the place asked for is not there or too small.
    """
    needed = bytes_of(patchset)
    problems: dict[str, Callable[[], str | None]] = {
        "gpu": lambda: None if fits_gpu(needed, device) else "no GPU, or too little memory on it,",
        "ram": lambda: None if here * needed + MARGIN < free_memory() else "too little memory",
        "disk": lambda: None if cached else _no_room(cache_folder(config), needed),
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


def free_memory() -> int:
    """Bytes of memory this machine, or the container it is in, could give; a large number where nothing says."""
    return min(_free_of_machine(), _free_of_container())


def _free_of_container() -> int:
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):  # no cgroup of version 2, or one without a limit
        return 1 << 62


def _free_of_machine() -> int:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 1 << 62  # only Linux says how much it could give
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _cached(patchset: PatchSet, folder: Path, say: Say) -> Pixels | None:
    """The set as it was decoded before, mapped, or None."""
    path, note = _files(patchset, folder)
    try:
        if not (is_plain(path) and is_plain(note)) or path.stat().st_size != bytes_of(patchset):
            return None
        held = json.loads(note.read_text())
        with progress_bar("hashing decoded patches (bytes)", path.stat().st_size) as update:
            if not isinstance(held, dict) or held.get("pillow") != PIL.__version__:
                return None  # another decoder may see other pixels in a JPEG
            if file_digest(path, counting(update)) != held.get("sha256"):
                return None
    except (OSError, ValueError):
        return None
    say(f"set {patchset.manifest.set_id[:16]}: {counted(patchset.manifest.n, 'patch')}, decoded before: {path}")
    return np.memmap(path, dtype=np.uint8, mode="c", shape=shape_of(patchset))


def _files(patchset: PatchSet, folder: Path) -> tuple[Path, Path]:
    stem = patchset.manifest.set_id
    return folder / f"{stem}.rgb", folder / f"{stem}.json"


def _decoded(patchset: PatchSet, config: DataConfig, folder: Path, place: str, say: Say) -> Pixels:
    """Decode a verified set into its cache file or, where the disk has no room, into memory."""
    needed = bytes_of(patchset)
    why = _no_room(folder, needed)
    if why is None:
        try:
            return _decode_to_file(patchset, config, folder)
        except OSError as error:
            why = describe_os_error(error, folder)
    if place == "disk":
        raise DistillError(f"{why}; choose another folder with data.cache_dir, or data.cache none")
    say(f"the decoded patches are not kept for the next run: {why}")
    pixels = shared_memory(patchset)
    _decode(pixels, patchset, config)
    return pixels


def _no_room(folder: Path, needed: int) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if free < needed + MARGIN:
        return f"{folder}: {free / 1e9:.1f} GB free, {(needed + MARGIN) / 1e9:.1f} GB wanted"
    return None


def _decode_to_file(patchset: PatchSet, config: DataConfig, folder: Path) -> Pixels:
    path, note = _files(patchset, folder)
    _remove_parts_of_the_dead(folder)
    part = folder / f"{PART_PREFIX}{secrets.token_hex(8)}-{path.name}"
    try:
        pixels = file_memory(part, patchset)
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


def _remove_parts_of_the_dead(folder: Path) -> None:
    """Remove what killed processes left; one that a process still writes is locked."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _decode(pixels: Pixels, patchset: PatchSet, config: DataConfig) -> None:
    with progress_bar("decoding patches", patchset.manifest.n) as update:
        decode_into(pixels, patchset, config.workers, counting(update))


def _verify(patchset: PatchSet, config: DataConfig, say: Say) -> None:
    manifest = patchset.manifest
    with progress_bar("verifying (bytes)", sum(shard.bytes for shard in manifest.shards)) as update:
        verify_shards(patchset, threads=max(config.workers, 1), on_bytes=counting(update))
    say(
        f"set {manifest.set_id[:16]}: {counted(manifest.n, 'patch')} of {manifest.size} px "
        f"in {counted(len(manifest.shards), 'verified shard')}"
    )
