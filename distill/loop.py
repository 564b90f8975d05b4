"""The training loop: batches of patches in, a trained student out. Steps are pure functions of their number."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from distill.augment import AugmentConfig, augment, draw, normalise
from distill.errors import DistillError
from distill.losses import Loss
from distill.patches import Order
from distill.randomness import generator
from distill.teacher import Teacher


@dataclasses.dataclass(kw_only=True)
class Progress:
    """How far a run is: ``step`` steps done, in ``seconds`` of training over all its sessions.

    ``losses`` are those of the steps since the last line of the log.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """What every step uses. ``patches`` is uint8 (n, size, size, 3), on ``device`` or in RAM."""

    student: nn.Module
    teacher: Teacher
    loss: Loss
    augment: AugmentConfig
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    patches: Tensor
    order: Order
    steps: int
    seed: int
    precision: str
    device: torch.device

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """bf16 for the operations that gain from it, or nothing."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def batch(self, step: int) -> Tensor:
        """The pixels both networks see at ``step``: float32 (B, 3, H, W), augmented, mixed, normalised."""
        indices = self.order.batch(step).to(self.patches.device)
        images = self.patches[indices].to(self.device, non_blocking=True)
        draws = draw(self.augment, len(images), images.shape[1], generator(self.seed, "augment", step))
        return normalise(augment(images, self.augment, draws), self.teacher.mean, self.teacher.std)

    def train_step(self, step: int) -> Tensor:
        """One update of the student; returns the loss, on the device, without waiting for it."""
        x = self.batch(step)
        with torch.inference_mode(), self.autocast():
            teacher_logits = self.teacher.model(x)
        with self.autocast():
            student_logits = self.student(x)
        loss = self.loss(student_logits, teacher_logits.clone())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()


Hook = Callable[[Progress], None]


def run_loop(
    loop: Loop,
    progress: Progress,
    *,
    log_steps: int,
    on_log: Callable[[Progress, dict[str, Any]], None],
    on_step: Hook,
) -> None:
    """Train from ``progress.step`` to ``loop.steps``, updating ``progress`` in place.

    ``on_log`` hears the mean loss every ``log_steps`` steps and at the end; ``on_step`` runs after each step,
    and may raise to stop the run. Time spent in either is not counted as training.

    Raises:
        DistillError: the loss is no longer a finite number.
    """
    loop.student.train()
    first, interval = progress.step, 0.0
    while progress.step < loop.steps:
        started = time.perf_counter()
        progress.losses.append(loop.train_step(progress.step))
        progress.step += 1
        at_log = progress.step % log_steps == 0 or progress.step == loop.steps
        mean = require_finite(progress) if at_log else 0.0  # waits for the device, so its time is counted
        elapsed = time.perf_counter() - started
        progress.seconds += elapsed
        interval += elapsed
        if at_log:
            progress.losses.clear()
            on_log(progress, {"loss": mean, "steps_per_second": (progress.step - first) / interval})
            first, interval = progress.step, 0.0
        on_step(progress)


def require_finite(progress: Progress) -> float:
    """The mean loss since the last line of the log, or 0 where there was no step; waits for the device.

    Raises:
        DistillError: it is no finite number.
    """
    mean = float(torch.stack(progress.losses).mean()) if progress.losses else 0.0
    if not math.isfinite(mean):
        raise DistillError(
            f"the loss became {mean} between steps {progress.step - len(progress.losses)} and {progress.step}; "
            "lower optim.lr or use train.precision fp32, and run again"
        )
    return mean
