"""Estimate the time, memory and disk space of a run on this machine from a few steps on random images.

The measured networks are not compiled, so a run that compiles its networks is faster than the estimate.
"""

import dataclasses
import logging
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from distill.config.schema import Config, NetworkConfig, StudentConfig, SupervisedConfig
from distill.data.batches import Resident, View
from distill.data.sampler import Order
from distill.runtime.compile import make_accelerator
from distill.runtime.device import peak_memory, reset_peak_memory
from distill.runtime.distributed import RunContext
from distill.targets.live import loss_of_each, members_of
from distill.targets.losses import TemperedLossConfig, UntemperedLossConfig, cross_entropy, make_loss, terms_of
from distill.targets.targets import LabelTargets, Targets, live_targets
from distill.targets.teacher import Network, teacher_size
from distill.targets.teacher_config import OtherTeacherConfig, TeacherConfig
from distill.training.trainer import Trainer, new_network

MIN_STEPS, MAX_STEPS, ENOUGH_SECONDS = 2, 20, 1.0  # measured after a first step, which is slow
MIN_ESTIMATED_STEPS = 200  # shorter runs take about as long as their estimate, so they log none
MAX_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 24}  # of a measured step; cost is proportional to pixels
BYTES_PER_PIXEL = 3
NORMALIZATION = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """The estimated cost of a run."""

    seconds: float  # of training
    images_per_second: float
    memory: int  # peak bytes of the GPU (without a GPU: of the process), including the decoded images
    disk: int  # bytes of the run directory
    decoded: int  # bytes of the decoded set on the disk, which all runs on the set share

    def __str__(self) -> str:
        disk = format_bytes(self.disk + self.decoded)
        return f"about {format_duration(self.seconds)}, {format_bytes(self.memory)} of memory, {disk} of disk"


def format_duration(seconds: float) -> str:
    """Return a time as text, such as ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60:02} min"


def format_bytes(num_bytes: int) -> str:
    """Return a number of bytes as text, such as ``1.4 GB``."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def estimate_cost(config: Config | SupervisedConfig, *, n: int, size: int, device: torch.device) -> Cost:
    """Estimate the cost of a run by measuring a few steps. An epoch is ``n`` images of ``size`` × ``size`` pixels."""
    batch = config.data.batch_size
    smallest = 2 * (config.optim.accumulate or 1)
    measured_batch = max(min(batch, MAX_PIXELS[device.type] // size**2), smallest)
    scale = batch / measured_batch
    before = reset_peak_memory(device)
    logging.disable(logging.INFO)  # the run itself logs the same lines
    try:
        trainer = _make_trainer(config, measured_batch, size, device)
        seconds = _step_seconds(trainer) * scale
    finally:
        logging.disable(logging.NOTSET)
    used = max(peak_memory(device) - before, 0) * scale
    pixels = n * size * size * BYTES_PER_PIXEL
    weights, checkpoint = _num_bytes(trainer.state.student.state_dict()), _num_bytes(trainer.state.state_dict())
    return Cost(
        seconds=seconds * config.train.steps(n, batch),
        images_per_second=batch / seconds,
        memory=before + round(used) + pixels,
        disk=2 * checkpoint + weights,  # a run directory contains two checkpoints
        decoded=pixels if isinstance(config, Config) else 0,
    )


def _make_trainer(config: Config | SupervisedConfig, batch: int, size: int, device: torch.device) -> Trainer:
    """Return a trainer with the settings of ``config``, random images, and a random teacher or arbitrary labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * batch, size, size, 3), dtype=torch.uint8, generator=generator)
    context = RunContext(device=device)
    order = Order(len(images), batch, 0)
    source = Resident(samples=images, order=order, context=context)
    view = View(source=source, augment=config.augment, seed=0, period=MAX_STEPS + 1)
    accelerator = make_accelerator(context, config.train.precision, "off", MAX_STEPS + 1)
    student: StudentConfig | NetworkConfig
    if isinstance(config, Config):
        student, num_classes = config.student, config.teacher.num_classes
        teacher = _random_teacher(config.teacher, num_classes, device)
        targets: Targets = live_targets(teacher, NORMALIZATION, view, accelerator)
        terms = [t for t in terms_of(config.loss) if isinstance(t, TemperedLossConfig | UntemperedLossConfig)]
        loss = make_loss(terms or TemperedLossConfig(name="kl"))  # no estimate of features and code of the user
        if teacher.others and teacher.combine == "losses":
            loss = loss_of_each(loss, [each.weight for each in members_of(teacher)])
    else:
        student, num_classes, loss = config.network, config.network.num_classes, cross_entropy
        labels = torch.arange(len(images)) % num_classes
        targets = LabelTargets(labels=labels, order=order, num_classes=num_classes, smoothing=0.0, context=context)
    norms = {"momentum": student.bn_momentum, "eps": student.bn_eps}
    network = new_network(student.arch, num_classes, 1, "init", **norms)
    return Trainer(config, network, view, targets, loss, NORMALIZATION, accelerator)


def _random_teacher(config: TeacherConfig, num_classes: int, device: torch.device) -> Network:
    """Return teachers of the architectures and sizes of ``config`` with random weights."""
    members = []
    every: list[TeacherConfig | OtherTeacherConfig] = [config, *(config.others or ())]
    for each in every:
        model = new_network(each.arch, num_classes, 0, "init from labels").eval().requires_grad_(False)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        known: dict[str, Any] = {"arch": each.arch, "num_classes": num_classes, "size": teacher_size(each)}
        mean, std = NORMALIZATION
        members.append(Network(path=Path(each.arch), sha256="", model=model, mean=mean, std=std, **known))
    return dataclasses.replace(members[0], others=tuple(members[1:]), combine=config.combine or "logits")


def _step_seconds(trainer: Trainer) -> float:
    """Return the median time of a step in seconds, without the slow first step."""
    trainer.state.student.train()
    float(trainer.train_step(0))  # waits for the device
    times: list[float] = []
    while len(times) < MIN_STEPS or (len(times) < MAX_STEPS and sum(times) <= ENOUGH_SECONDS):
        started = time.perf_counter()
        float(trainer.train_step(1 + len(times)))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _num_bytes(value: Any) -> int:
    """Return the total number of bytes of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_num_bytes(part) for part in parts)
