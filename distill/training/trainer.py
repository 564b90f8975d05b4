"""The training loop: batches of images in, a trained student out. Steps are pure functions of their number."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from distill.augment import normalize
from distill.data.batches import View
from distill.errors import NonFiniteLossError
from distill.runtime.distributed import Ranks
from distill.runtime.precision import Precision, autocast
from distill.runtime.randomness import Stream
from distill.targets.losses import Loss
from distill.targets.targets import Targets
from distill.weights.files import Triple
from manifests.format.schema import patch_key


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
    """What every step uses: ``forward`` is the ``student``, compiled or not; ``average`` is its EMA.

    ``mean`` and ``std`` normalise RGB in [0, 1]; ``arithmetic`` is what rounding depends on, as ``Engine.describe``.
    """

    student: nn.Module
    forward: Callable[[Tensor], Tensor]
    average: AveragedModel | None
    targets: Targets
    loss: Loss
    view: View
    mean: Triple
    std: Triple
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    steps: int
    seed: int
    precision: Precision
    scaler: torch.amp.GradScaler
    device: torch.device
    arithmetic: dict[str, Any]

    @property
    def result(self) -> nn.Module:
        """The network that a run reports and saves: the average where there is one."""
        return self.student if self.average is None else self.average.module

    @property
    def ranks(self) -> Ranks:
        """Among which each batch is shared out."""
        return self.view.ranks

    def train_step(self, step: int) -> Tensor:
        """One update of the student; returns the batch's loss, on the device, without waiting for it."""
        purpose = "step" if self.ranks.first else f"step of rank {self.ranks.rank}"
        torch.manual_seed(Stream(self.seed, purpose, step).word() >> 1)  # for dropout, should a network have it
        torch.compiler.cudagraph_mark_step_begin()  # what CUDA graphs gave in the last step may be overwritten
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.view.batch(step)
        x = normalize(batch.images, self.mean, self.std)
        target = self.targets(batch, x)
        with autocast(self.device, self.precision):
            logits = self.forward(x)
        loss = self.ranks.weigh(self.loss(logits, target), self.view.batch_size)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.student)
        return self.ranks.mean(loss.detach())


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
        NonFiniteLossError: the loss is no longer a finite number.
    """
    loop.student.train()
    first, interval = progress.step, 0.0
    while progress.step < loop.steps:
        started = time.perf_counter()
        progress.losses.append(loop.train_step(progress.step))
        progress.step += 1
        at_log = progress.step % log_steps == 0 or progress.step == loop.steps
        mean = require_finite(loop, progress) if at_log else 0.0  # waits for the device, so its time is counted
        elapsed = time.perf_counter() - started
        progress.seconds += elapsed
        interval += elapsed
        if at_log:
            progress.losses.clear()
            on_log(progress, {"loss": mean, "steps_per_second": (progress.step - first) / interval})
            first, interval = progress.step, 0.0
        on_step(progress)


def require_finite(loop: Loop, progress: Progress) -> float:
    """The mean loss since the last line of the log, or 0 where there was no step; waits for the device.

    Raises:
        NonFiniteLossError: a loss is no finite number; names the first such step and its samples.
    """
    if not progress.losses:
        return 0.0
    losses = torch.stack(progress.losses)
    mean = float(losses.double().mean())
    if math.isfinite(mean):
        return mean
    first = int((~torch.isfinite(losses)).nonzero()[0])
    step = progress.step - len(losses) + first
    indices = loop.view.indices(step)
    keys = [patch_key(int(index)) for index in indices]
    raise NonFiniteLossError(
        f"the loss became {float(losses[first])} at step {step}; lower optim.lr or use train.precision fp32, and "
        f"start again; the step's samples are {', '.join(keys[:3])} …",
        {"step": step, "loss": str(float(losses[first])), "samples": keys},
    )
