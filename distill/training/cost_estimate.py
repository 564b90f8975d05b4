"""The cost of a run on this machine: time, memory and disk, measured with a few steps on random images.

Networks are not compiled for it and every batch is new, so runs that compile, as all do on a GPU, or that repeat
batches are faster than estimated.
"""

import dataclasses
import statistics
import time
from typing import Any

import torch

from distill.config.schema import Config, NetworkConfig, StudentConfig, SupervisedConfig
from distill.data.batches import Resident, View
from distill.data.sampler import Order
from distill.runtime.compile import Accelerator, make_accelerator
from distill.runtime.context import RunContext
from distill.runtime.logs import silenced
from distill.runtime.memory import peak_memory, reset_peak_memory
from distill.targets.losses import cross_entropy, make_loss
from distill.targets.targets import LabelTargets, TeacherTargets
from distill.training.trainer import Trainer, make_trainer, new_network

WARM_STEPS, MIN_STEPS, MAX_STEPS = 1, 2, 20
STEPS = WARM_STEPS + MAX_STEPS
ENOUGH_SECONDS = 1.0
MIN_ESTIMATED_STEPS = 200
"""A run of at least so many steps logs its estimated cost first; a shorter one is done about as soon."""
MAX_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 24}
"""The most pixels in a measured step; the cost of a larger batch is taken to be proportional."""
BYTES_PER_PIXEL = 3
CHECKPOINTS = 2  # a run directory holds the last checkpoint and the one before it
NORMALIZATION = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a run: ``seconds`` of training, and bytes of peak ``memory`` and of ``disk`` for its directory.

    ``memory`` is the GPU's on a GPU, else the process's with the decoded images. ``decoded`` is the disk space of the
    decoded set, which all runs on it share.
    """

    seconds: float
    images_per_second: float
    memory: int
    disk: int
    decoded: int

    def __str__(self) -> str:
        disk = format_bytes(self.disk + self.decoded)
        return f"about {format_duration(self.seconds)}, {format_bytes(self.memory)} of memory, {disk} of disk"


def format_duration(seconds: float) -> str:
    """Format a time, such as ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"


def format_bytes(num_bytes: int) -> str:
    """Format a number of bytes, such as ``1.4 GB``."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def estimate_cost(config: Config | SupervisedConfig, *, n: int, size: int, device: torch.device) -> Cost:
    """Measure a few steps of ``config``, as if an epoch had ``n`` images of ``size`` px. No input file is needed."""
    batch = config.data.batch_size
    measured_batch = max(min(batch, MAX_PIXELS[device.type] // size**2), 2)
    scale = batch / measured_batch
    before = reset_peak_memory(device)
    with silenced():
        trainer = _make_trainer(config, measured_batch, size, device)
        seconds = _step_seconds(trainer) * scale
    used = max(peak_memory(device) - before, 0) * scale
    pixels = n * size * size * BYTES_PER_PIXEL
    network = _num_bytes(trainer.state.student.state_dict())
    average = 0 if trainer.state.average is None else network
    checkpoint = network + average + _num_bytes(trainer.state.optimizer.state_dict())
    return Cost(
        seconds=seconds * config.train.steps(n, batch),
        images_per_second=batch / seconds,
        memory=before + round(used) + pixels,
        disk=CHECKPOINTS * checkpoint + network,
        decoded=pixels if isinstance(config, Config) else 0,
    )


def _make_trainer(config: Config | SupervisedConfig, batch: int, size: int, device: torch.device) -> Trainer:
    """Return a trainer of ``config`` on random images, with a teacher of random weights or with made-up labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * batch, size, size, 3), dtype=torch.uint8, generator=generator)
    context = RunContext(device=device)
    order = Order(len(images), batch, 0)
    view = View(
        source=Resident(samples=images, order=order, context=context), augment=config.augment, seed=0, period=STEPS
    )
    accelerator = make_accelerator(context, config.train.precision, "off", STEPS)
    student: StudentConfig | NetworkConfig
    if isinstance(config, Config):
        student, num_classes = config.student, config.teacher.num_classes
        targets: TeacherTargets | LabelTargets = _random_teacher(config, view, accelerator)
        loss = make_loss(config.loss)
    else:
        student, num_classes, loss = config.network, config.network.num_classes, cross_entropy
        labels = torch.arange(len(images)) % num_classes
        targets = LabelTargets(labels=labels, order=order, num_classes=num_classes, smoothing=0.0, context=context)
    network = new_network(student.arch, num_classes, 1, "init", student.bn_momentum, student.bn_eps)
    return make_trainer(config, network, view, targets, loss, NORMALIZATION, accelerator)


def _random_teacher(config: Config, view: View, accelerator: Accelerator) -> TeacherTargets:
    teacher = new_network(config.teacher.arch, config.teacher.num_classes, 0, "init from labels")
    teacher.eval().requires_grad_(False)
    teacher.to(accelerator.context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TeacherTargets(network=accelerator.frozen(teacher, view.example()))


def _step_seconds(trainer: Trainer) -> float:
    """Return the median time of some steps after the first ones, which are slow."""
    trainer.state.student.train()
    times: list[float] = []
    for step in range(STEPS):
        started = time.perf_counter()
        float(trainer.train_step(step))  # waits for the device
        times.append(time.perf_counter() - started)
        measured = times[WARM_STEPS:]
        if len(measured) >= MIN_STEPS and sum(measured) > ENOUGH_SECONDS:
            break
    return statistics.median(times[WARM_STEPS:])


def _num_bytes(value: Any) -> int:
    """Return the size of all tensors in ``value``."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_num_bytes(part) for part in parts)
