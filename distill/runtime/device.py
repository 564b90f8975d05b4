"""Choose device, precision and threads of a run, and measure free and used memory."""

import contextlib
import logging
import os
import platform
import re
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from distill.errors import DistillError
from distill.runtime.distributed import SINGLE_PROCESS, Ranks
from manifests.support.counts import counted
from manifests.support.processes import usable_cores

SAMPLE_SECONDS = 0.5
BUSY_LOAD = 0.75  # a core counts as busy from this load on
logger = logging.getLogger(__name__)

Precision = Literal["bf16", "fp16", "fp32"]
PrecisionChoice = Literal["auto", "bf16", "fp16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_CPU_FLAGS: dict[Precision, set[str]] = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""Names of CPU instructions for each precision in /proc/cpuinfo, on x86-64 and AArch64."""


def processor(device: torch.device) -> str:
    """Return the name of a GPU, or the name of the CPU with the vector instructions that torch uses."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    named = re.search(r"^model name\s*:(.*)$", cpuinfo(), re.MULTILINE)
    name = named[1].strip() if named else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def pick_device(name: str, ranks: Ranks = SINGLE_PROCESS) -> torch.device:
    """Return the device ``name``; ``auto`` is a GPU if there is one, else the CPU. Ranks use different GPUs."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.local_world_size > 1 and name.startswith("cuda"):
        if name != "cuda":
            found = f"names one GPU, but {ranks.local_world_size} ranks run on this machine"
            raise DistillError(f"--device {name}: {found}; use --device cuda, or start one rank on this machine")
        name = f"cuda:{ranks.local_rank}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise DistillError(f"--device {name}: this device is not supported; use auto, cpu or cuda")
        if device.type == "cuda" and ranks.local_world_size > 1:
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f"this machine does not have the device: {str(error).splitlines()[0][:80]}"
        raise DistillError(f"--device {name}: {found}; use auto, cpu or cuda") from error
    return device


def choose_threads(state: dict[str, Any] | None) -> None:
    """Set the number of torch's threads for a run on the CPU, if no environment variable sets it.

    Threads wait for each other at every layer, so two threads on one and a half free cores are slower than one
    thread. A run that resumes from the checkpoint ``state`` keeps its number of threads, because rounding depends on
    that number.
    """
    if not os.environ.keys().isdisjoint({"OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS"}):
        return
    cores = usable_cores()
    if state is not None:
        before = state["arithmetic"].get("threads")
        if isinstance(before, int) and 1 <= before <= cores:
            torch.set_num_threads(before)
        return
    present, busy = torch.get_num_threads(), busy_cores()
    wanted = max(min(present, cores - busy), 1)
    if wanted < present:
        torch.set_num_threads(wanted)
        found = f"other programs keep {busy} of {counted(cores, 'core')} busy, so this run uses "
        found += f"{counted(wanted, 'thread')} instead of {present}, which changes rounding"
        logger.info(f"{found}; set OMP_NUM_THREADS={present} to use {counted(present, 'thread')}")


def busy_cores() -> int:
    """Return how many of the cores that this process may use are busy, measured for ``SAMPLE_SECONDS``."""
    shares = psutil.cpu_percent(interval=SAMPLE_SECONDS, percpu=True)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(len(shares)))
    busy = sum(share for core, share in enumerate(shares) if core in usable) / 100
    return int(busy + 1 - BUSY_LOAD)


def choose_precision(asked: PrecisionChoice, device: torch.device) -> Precision:
    """Return ``asked``; for ``auto``, bf16 if the device supports bf16, else fp16 on a GPU and fp32 on a CPU."""
    if asked != "auto":
        if device.type == "cpu" and asked != "fp32" and not cpu_has(asked):
            logger.info(f"this CPU has no instructions for {asked}; set train.precision fp32 for more speed")
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has("bf16") else "fp32"


def cpu_has(precision: Precision) -> bool:
    """Return whether this CPU has instructions for ``precision``; False if the system does not list instructions."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo(), re.MULTILINE)
    return flags is not None and not _CPU_FLAGS[precision].isdisjoint(flags[1].split())


def cpuinfo() -> str:
    """Return the text of /proc/cpuinfo, or an empty text on systems other than Linux."""
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8", "replace") if path.exists() else ""


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Return torch's autocast context: most operations use ``precision``, the others float32. fp32 has no effect."""
    half = precision != "fp32"
    return torch.autocast(device.type, dtype=DTYPES[precision] if half else torch.bfloat16, enabled=half)


def free_memory() -> int:
    """Return the free memory in bytes: of this machine or of the container (cgroup v2), whichever is smaller."""
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return min(available, int(limit) - int(used))
    except (OSError, ValueError):  # no cgroup, or a cgroup without a limit
        return available


def fits_gpu(num_bytes: int, device: torch.device) -> bool:
    """Return whether ``device`` is a GPU and ``num_bytes`` fit into half of the GPU's free memory."""
    return device.type == "cuda" and num_bytes < torch.cuda.mem_get_info(device)[0] // 2


def reset_peak_memory(device: torch.device) -> int:
    """Begin a new measurement of ``peak_memory``. Return the bytes of memory that are used now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # only Linux measures the peak
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory(device)


def peak_memory(device: torch.device) -> int:
    """Return the largest memory use in bytes since ``reset_peak_memory``: of the GPU, or on a CPU of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, ValueError, KeyError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    return int(psutil.Process().memory_info().rss)
