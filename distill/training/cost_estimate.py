"""Estimate what a run costs on this machine: time, memory and disk, from a few steps on random images.

Networks are not compiled for it and no logits are reused, so a run that compiles, as all do on a GPU, or has several
passes is faster than estimated.
"""

import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from distill.config.schema import Config, SupervisedConfig
from distill.training.trainer import Loop

WARM_STEPS, LEAST_STEPS, MOST_STEPS = 1, 2, 20
ENOUGH_SECONDS = 1.0
WORTH_STEPS = 200
"""Minimum length of a run, in steps, for which an estimate is made before it starts."""
MAX_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Maximum pixels in a measured step, by device type; the cost of a larger batch is taken as proportional."""
BYTES_PER_PIXEL = 3
CHECKPOINTS = 2
"""Checkpoints in a run directory: the last and the one before it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a whole run: ``seconds`` of training; peak ``memory`` and ``disk`` of its directory in bytes.

    ``memory`` is the GPU's on a GPU, else the process's, including decoded images. ``decoded`` is the disk in bytes
    of the decoded set, which all runs on it share.
    """

    seconds: float
    images_per_second: float
    memory: int
    disk: int
    decoded: int

    def __str__(self) -> str:
        """Return time, memory and disk in one line."""
        disk = format_bytes(self.disk + self.decoded)
        return f"about {format_duration(self.seconds)}, {format_bytes(self.memory)} of memory, {disk} of disk"


def format_duration(seconds: float) -> str:
    """Return a time such as ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"


def format_bytes(num_bytes: int) -> str:
    """Return a number of bytes such as ``1.4 GB``."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


C = TypeVar("C", Config, SupervisedConfig)


def estimate(config: C, make: Callable[[C, Tensor], Loop], *, n: int, size: int, device: torch.device) -> Cost:
    """Estimate a run of ``config`` whose epoch has ``n`` images of ``size`` px, by measuring a few steps.

    ``make`` builds the training loop of a config on images, uint8 (N, size, size, 3), with new networks.

    Raises:
        DistillError: a network of the config is unknown, or does not take images of ``size`` px.
    """
    batch = config.data.batch_size
    few = max(min(batch, MAX_PIXELS[device.type] // size**2), 2)
    short = config.train.model_copy(
        update={"compile": "off", "epochs": None, "samples": (WARM_STEPS + MOST_STEPS) * few}
    )
    data = config.data.model_copy(update={"batch_size": few})
    before = _reset_peak_memory(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * few, size, size, 3), dtype=torch.uint8, generator=generator)
    loop = make(config.model_copy(update={"train": short, "data": data}), images)
    seconds = _step_seconds(loop) * batch / few
    used = max(_peak_memory(device) - before, 0) * batch / few
    pixels = n * size * size * BYTES_PER_PIXEL
    network = _num_bytes(loop.student.state_dict())
    average = 0 if loop.average is None else network
    checkpoint = network + average + _num_bytes(loop.optimizer.state_dict())
    return Cost(
        seconds=seconds * config.train.steps(n, batch),
        images_per_second=batch / seconds,
        memory=before + round(used) + pixels,
        disk=CHECKPOINTS * checkpoint + network,
        decoded=pixels if isinstance(config, Config) else 0,
    )


def _step_seconds(loop: Loop) -> float:
    """Return the median seconds a step, after the first steps, which are slow."""
    loop.student.train()
    taken: list[float] = []
    for step in range(WARM_STEPS + MOST_STEPS):
        started = time.perf_counter()
        float(loop.train_step(step))  # synchronizes with the device
        taken.append(time.perf_counter() - started)
        measured = taken[WARM_STEPS:]
        if len(measured) >= LEAST_STEPS and sum(measured) > ENOUGH_SECONDS:
            break
    return statistics.median(taken[WARM_STEPS:])


def _num_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_num_bytes(part) for part in parts)


def _reset_peak_memory(device: torch.device) -> int:
    """Start measuring peak memory again; returns the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # only Linux has it; on other systems the peak counts from the start of the process
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_memory(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, ValueError, KeyError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
