"""What a run would cost here: time, memory and disk, from a few steps on images made up for it.

Nothing is compiled for it, and each view is new: a run that compiles, as all do on a GPU, or has several passes is
faster than it says.
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
STEPS = WARM_STEPS + MOST_STEPS
ENOUGH_SECONDS = 1.0
WORTH_STEPS = 200
"""Steps from which on a run says first what it will cost; a shorter one has shown it sooner than said it."""
PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}
"""At most so many are in a step that is measured; a larger batch is taken to cost in proportion."""

BYTES_A_PIXEL = 3
CHECKPOINTS = 2
"""That a run directory holds: the last and the one before it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a whole run: ``seconds`` of training, and bytes: the most ``memory``, the ``disk`` of its directory.

    ``memory`` is the GPU's on a GPU, else the process's, decoded images among it. ``decoded`` is the disk that the
    decoded set takes, once for all runs of it.
    """

    seconds: float
    images_per_second: float
    memory: int
    disk: int
    decoded: int

    def __str__(self) -> str:
        """In a line."""
        disk = size_of(self.disk + self.decoded)
        return f"about {duration(self.seconds)}, {size_of(self.memory)} of memory, {disk} of disk"


def duration(seconds: float) -> str:
    """A time as people say it, such as ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"


def size_of(count: int) -> str:
    """A number of bytes as people say it, such as ``1.4 GB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


C = TypeVar("C", Config, SupervisedConfig)


def estimate(config: C, make: Callable[[C, Tensor], Loop], *, n: int, size: int, device: torch.device) -> Cost:
    """Measure a few steps of ``config`` as if an epoch had ``n`` images of ``size`` px.

    ``make`` gives the loop of a config on images, uint8 (N, size, size, 3), with networks of its own.

    Raises:
        DistillError: the config asks for a network that there is not, or one that does not take the size.
    """
    batch = config.data.batch_size
    few = max(min(batch, PIXELS[device.type] // size**2), 2)
    short = config.train.model_copy(update={"compile": "off", "epochs": None, "samples": STEPS * few})
    data = config.data.model_copy(update={"batch_size": few})
    before = _forget_peak(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * few, size, size, 3), dtype=torch.uint8, generator=generator)
    loop = make(config.model_copy(update={"train": short, "data": data}), images)
    seconds = _step_seconds(loop) * batch / few
    used = max(_peak(device) - before, 0) * batch / few
    pixels = n * size * size * BYTES_A_PIXEL
    network = _bytes(loop.student.state_dict())
    average = 0 if loop.average is None else network
    checkpoint = network + average + _bytes(loop.optimizer.state_dict())
    return Cost(
        seconds=seconds * config.train.steps(n, batch),
        images_per_second=batch / seconds,
        memory=before + round(used) + pixels,
        disk=CHECKPOINTS * checkpoint + network,
        decoded=pixels if isinstance(config, Config) else 0,
    )


def _step_seconds(loop: Loop) -> float:
    """The median of some steps after the first ones, which are slow."""
    loop.student.train()
    taken: list[float] = []
    for step in range(WARM_STEPS + MOST_STEPS):
        started = time.perf_counter()
        float(loop.train_step(step))  # waits for the device
        taken.append(time.perf_counter() - started)
        measured = taken[WARM_STEPS:]
        if len(measured) >= LEAST_STEPS and sum(measured) > ENOUGH_SECONDS:
            break
    return statistics.median(taken[WARM_STEPS:])


def _bytes(value: Any) -> int:
    """Of all tensors in ``value``."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_bytes(part) for part in parts)


def _forget_peak(device: torch.device) -> int:
    """Begin to look for a new peak; returns the bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # elsewhere than on Linux the peak is that since this program began
        Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, ValueError, KeyError):
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
