"""Make a training loop for the benchmarks: patches are noise, the teacher has random weights."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from measure.plain_loop import MEAN, STD, WARM_UP
from torch import Tensor

from distill.augment import AugmentConfig, normalize
from distill.config.schema import Config, StudentConfig, TrainConfig
from distill.data.batches import Resident, View
from distill.data.sampler import Order
from distill.models import build_model
from distill.optim.config import AdamConfig
from distill.runtime.compile import Accelerator, Compile, make_accelerator
from distill.runtime.device import Precision, choose_precision
from distill.runtime.distributed import RunContext
from distill.targets.losses import make_loss
from distill.targets.stored_logits import LogitsFile, LogitsManifest, StoredLogits, TeacherInfo
from distill.targets.targets import StoredTargets, Targets, TeacherTargets
from distill.targets.teacher import TeacherConfig
from distill.training.trainer import Trainer

PATCHES = 20_000
Way = Literal["live", "twice", "stored"]


def patches() -> Tensor:
    """Return noise: uint8 (20,000, 32, 32, 3)."""
    return torch.randint(0, 256, (PATCHES, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def noise_loop(
    arch: tuple[str, str], batch: int, steps: int, device: torch.device, compiling: Compile, way: Way
) -> Iterator[Trainer]:
    """Yield the loop of ``distill train`` for ``steps`` steps, with networks ``arch``: teacher, student."""
    context = RunContext(device=device)
    accelerator = make_accelerator(context, "auto", compiling, 10**6)
    source = Resident(samples=patches().to(device), order=Order(PATCHES, batch, 0), context=context)
    half = WARM_UP + (steps - WARM_UP + 1) // 2  # of the measured steps, as many new as seen before
    view = View(source=source, augment=AugmentConfig(), seed=0, period=half if way == "twice" else steps)
    example = normalize(view.batch(0).images, MEAN, STD)
    with tempfile.TemporaryDirectory() as folder:
        targets = _targets(arch[0], way, accelerator, example, (Path(folder), batch, steps))
        yield _loop(arch[1], view, targets, accelerator)


def precision_of(device: torch.device) -> Precision:
    """Return the arithmetic that ``distill`` would choose on a device."""
    return choose_precision("auto", device)


def _targets(
    arch: str, way: Way, accelerator: Accelerator, example: Tensor, labels: tuple[Path, int, int]
) -> Targets:
    if way == "stored":
        return StoredTargets(logits=_noise_logits(*labels), context=accelerator.context)
    teacher = build_model(arch, 10).eval().requires_grad_(False)
    teacher.to(accelerator.context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = accelerator.frozen(teacher, example)
    return TeacherTargets(network=network, cache={} if way == "twice" else None)


def _noise_logits(folder: Path, batch: int, steps: int) -> StoredLogits:
    path = folder / "logits-000000.npy"
    np.save(path, np.random.default_rng(0).normal(0, 3, (steps * batch, 10)).astype(np.float16))
    digest = "0" * 64
    manifest = LogitsManifest(
        format="labels/1",
        set_id=digest,
        teacher=TeacherInfo(arch="resnet56", sha256=digest, num_classes=10, mean=list(MEAN), std=list(STD)),
        view={},
        batch_size=batch,
        precision="bf16",
        files=[LogitsFile(name=path.name, steps=steps, sha256=digest)],
        environment={},
    )
    return StoredLogits(folder=folder, manifest=manifest, arrays=(np.load(path, mmap_mode="r"),))


def _loop(arch: str, view: View, targets: Targets, accelerator: Accelerator) -> Trainer:
    student = build_model(arch, 10).train()
    config = Config(
        teacher=TeacherConfig(arch=arch, num_classes=10),
        student=StudentConfig(arch=arch),
        optim=AdamConfig(name="adam", lr=1e-3),
        train=TrainConfig(samples=1),
    )
    return Trainer(config, student, view, targets, make_loss(config.loss), (MEAN, STD), accelerator)
