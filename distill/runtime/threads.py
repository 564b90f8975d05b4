"""The number of torch's threads on a CPU: as many as cores that other programs leave free."""

import logging
import os
from typing import Any

import psutil
import torch

from manifests.support.counts import counted
from manifests.support.processes import usable_cores

SAMPLE_SECONDS = 0.5
TAKEN = 0.75  # load of a core from which on it counts as taken
logger = logging.getLogger(__name__)
_CHOICES = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS")


def choose_threads(state: dict[str, Any] | None) -> None:
    """Set the number of torch's threads for a run on the CPU, unless the user has set it in the environment.

    Threads wait for one another at every layer, so two threads on one and a half free cores are slower than one. A
    run that resumes from the checkpoint ``state`` keeps its number of threads, because rounding depends on it.
    """
    if any(name in os.environ for name in _CHOICES):
        return
    cores = usable_cores()
    if state is not None:
        begun = state["arithmetic"].get("threads") if isinstance(state["arithmetic"], dict) else None
        if isinstance(begun, int) and 1 <= begun <= cores:
            torch.set_num_threads(begun)
        return
    present, taken = torch.get_num_threads(), busy_cores()
    wanted = max(min(present, cores - taken), 1)
    if wanted < present:
        torch.set_num_threads(wanted)
        logger.info(
            f"other programs keep {taken} of {counted(cores, 'core')} busy: {counted(wanted, 'thread')} instead of "
            f"{present}, which moves rounding; OMP_NUM_THREADS={present} keeps {present}"
        )


def busy_cores() -> int:
    """Return how many of the cores that this process may use are busy while it sleeps for ``SAMPLE_SECONDS``."""
    shares = psutil.cpu_percent(interval=SAMPLE_SECONDS, percpu=True)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(len(shares)))
    busy = sum(share for core, share in enumerate(shares) if core in usable) / 100
    return int(busy + 1 - TAKEN)
