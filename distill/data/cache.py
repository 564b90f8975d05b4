"""Decoded sets: one file of raw pixels a set, kept between runs, and where a run holds its pixels.

``SET_ID.rgb`` in the cache folder is uint8 (n, size, size, 3); ``SET_ID.json``, written after it, has its SHA-256. A
file is believed only after it was hashed again, and was decoded from shards that were verified.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from distill.data.config import DataConfig
from distill.data.patches import Pixels, bytes_of, decode_into, file_memory, shape_of, shared_memory
from distill.errors import DistillError
from manifests import PatchSet, verify_shards
from manifests.digest import file_digest
from manifests.files import PART_PREFIX, describe_os_error, is_plain, sync_directory, write_atomically
from manifests.terminal import counting, progress_bar

Say = Callable[[str], None]
MARGIN = 1 << 30
"""Bytes of disk and of memory that stay free."""


def resident_pixels(patchset: PatchSet, config: DataConfig, device: torch.device, say: Say) -> Tensor:
    """Every patch of a set, verified: uint8 (n, size, size, 3), where ``config.cache`` says.

    Raises:
        DistillError: it does not fit there, or a member is not the image the manifest promises.
        PatchSetError: a shard is not what the manifest says.
    """
    place = _place(bytes_of(patchset), config, device)
    folder = cache_folder(config)
    pixels = _cached(patchset, folder, say)
    if pixels is None:
        _verify(patchset, config, say)
        pixels = _decoded(patchset, config, folder, place, say)
    tensor = torch.from_numpy(np.array(pixels) if place == "ram" and isinstance(pixels, np.memmap) else pixels)
    return tensor.to(device) if place == "gpu" else tensor


def cache_folder(config: DataConfig) -> Path:
    """Where decoded sets are kept."""
    if config.cache_dir is not None:
        return config.cache_dir
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "single-image-distillation"


def _place(needed: int, config: DataConfig, device: torch.device) -> str:
    """Which of ``gpu``, ``ram`` and ``disk`` holds the pixels.

    Raises:
        DistillError: the place asked for is not there or too small.
    """
    fits = {
        "gpu": device.type == "cuda" and needed < torch.cuda.mem_get_info(device)[0] // 2,
        "ram": needed + MARGIN < free_memory(),
        "disk": True,  # _decoded looks
    }
    if config.cache == "auto":
        return next(place for place, fit in fits.items() if fit)
    if not fits[config.cache]:
        held = "no GPU" if config.cache == "gpu" and device.type != "cuda" else "too little memory"
        raise DistillError(
            f"data.cache {config.cache}: {held} for {needed / 1e9:.1f} GB of decoded patches; use auto or disk"
        )
    return config.cache


def free_memory() -> int:
    """Bytes of memory this machine could give; a large number where it does not say."""
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
            if not isinstance(held, dict) or file_digest(path, counting(update)) != held.get("sha256"):
                return None
    except (OSError, ValueError):
        return None
    say(f"set {patchset.manifest.set_id[:16]}: {patchset.manifest.n} patches, decoded before: {path}")
    return np.memmap(path, dtype=np.uint8, mode="c", shape=shape_of(patchset))


def _files(patchset: PatchSet, folder: Path) -> tuple[Path, Path]:
    stem = patchset.manifest.set_id
    return folder / f"{stem}.rgb", folder / f"{stem}.json"


def _decoded(patchset: PatchSet, config: DataConfig, folder: Path, place: str, say: Say) -> Pixels:
    """Decode a verified set into its cache file or, where the disk has no room and memory has, into memory."""
    needed = bytes_of(patchset)
    why = _no_room(folder, needed)
    if why is None:
        try:
            return _decode_to_file(patchset, config, folder)
        except OSError as error:
            why = describe_os_error(error, folder)
    if place == "disk":
        raise DistillError(f"{why}; choose another folder with data.cache_dir")
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
    part = folder / f"{PART_PREFIX}{os.getpid()}-{path.name}"
    try:
        pixels = file_memory(part, patchset)
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
    """Remove what killed processes left; other runs may be decoding here at this moment."""
    for part in folder.glob(f"{PART_PREFIX}*"):
        pid = part.name.removeprefix(PART_PREFIX).split("-", 1)[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            part.unlink(missing_ok=True)


def _decode(pixels: Pixels, patchset: PatchSet, config: DataConfig) -> None:
    with progress_bar("decoding patches", patchset.manifest.n) as update:
        decode_into(pixels, patchset, config.workers, counting(update))


def _verify(patchset: PatchSet, config: DataConfig, say: Say) -> None:
    manifest = patchset.manifest
    with progress_bar("verifying (bytes)", sum(shard.bytes for shard in manifest.shards)) as update:
        verify_shards(patchset, threads=max(config.workers, 1), on_bytes=counting(update))
    say(
        f"set {manifest.set_id[:16]}: {manifest.n} patches of {manifest.size} px "
        f"in {len(manifest.shards)} verified shards"
    )
