"""Measure how much memory is free, and the peak of the memory that this process used."""

from contextlib import suppress
from pathlib import Path

import psutil
import torch


def free_memory() -> int:
    """Return the free bytes of memory of this machine, or of its container (cgroup v2) if these are fewer."""
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return min(available, int(limit) - int(used))
    except (OSError, ValueError):  # no cgroup, or a cgroup without a limit
        return available


def fits_gpu(num_bytes: int, device: torch.device) -> bool:
    """Return whether ``device`` is a GPU and ``num_bytes`` fit into half of its free memory."""
    return device.type == "cuda" and num_bytes < torch.cuda.mem_get_info(device)[0] // 2


def reset_peak_memory(device: torch.device) -> int:
    """Start a new measurement of ``peak_memory`` and return the bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # only Linux measures the peak
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak of used bytes since ``reset_peak_memory``: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, ValueError, KeyError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    return int(psutil.Process().memory_info().rss)
