"""Set the number of torch's threads on a CPU to the number of cores that other programs leave free."""

import logging
import os
from typing import Any

import psutil
import torch

from manifests.support.counts import counted
from manifests.support.processes import usable_cores

SAMPLE_SECONDS = 0.5
TAKEN = 0.75  # a core counts as busy from this load on
logger = logging.getLogger(__name__)


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
        logger.info(
            f"other programs keep {busy} of {counted(cores, 'core')} busy, so this run uses "
            f"{counted(wanted, 'thread')} instead of {present}, which changes rounding; "
            f"set OMP_NUM_THREADS={present} to keep {present}"
        )


def busy_cores() -> int:
    """Measure for ``SAMPLE_SECONDS`` how many of the cores that this process may use are busy."""
    shares = psutil.cpu_percent(interval=SAMPLE_SECONDS, percpu=True)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(len(shares)))
    busy = sum(share for core, share in enumerate(shares) if core in usable) / 100
    return int(busy + 1 - TAKEN)
