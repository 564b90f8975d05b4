"""The training loop: what a step computes, and when a run logs, evaluates, saves and stops."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.augment import normalize
from distill.config.schema import Config, SupervisedConfig
from distill.data.batches import View
from distill.errors import NonFiniteLossError
from distill.models import build_model, set_batch_norms
from distill.optim import make_optimizer, make_scheduler
from distill.runtime.compile import Accelerator
from distill.runtime.distributed import Ranks
from distill.runtime.precision import autocast
from distill.runtime.randomness import Stream
from distill.targets.losses import Loss
from distill.targets.targets import Targets
from distill.training.checkpoint import save_checkpoint
from distill.training.metrics_log import MetricsLog
from distill.weights.files import Triple
from manifests.format.schema import patch_key
from manifests.support.console import progress_bar
from manifests.support.processes import handling

Purpose = Literal["init", "init from labels"]
"""Of a network's initial weights: a student's, or those of a network trained from labels."""
Measure = Callable[[nn.Module], dict[str, float]]  # measures a network during a run; returns figures by name


class InterruptedRun(Exception):  # noqa: N818 - not an error: the run was asked to stop
    """The run was asked to stop, and has written a checkpoint."""


@dataclasses.dataclass(kw_only=True)
class TrainState:
    """Everything that steps change, and that a checkpoint holds.

    ``average`` is the moving average of the student's weights, if the config wants one. ``seconds`` is the training
    time over all sessions; ``losses`` are those since the last line of the log, each a scalar on the device.
    """

    student: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = dataclasses.field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""
        return {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains a student on the batches of ``view`` towards ``targets``, for as many steps as the ``accelerator`` has.

    ``forward`` computes the student, compiled or not. ``normalization`` is mean and std of RGB in [0, 1].
    """

    state: TrainState
    forward: Callable[[Tensor], Tensor]
    view: View
    targets: Targets
    loss: Loss
    normalization: tuple[Triple, Triple]
    accelerator: Accelerator
    seed: int

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""
        return self.accelerator.steps

    @property
    def ranks(self) -> Ranks:
        """The ranks that share each batch."""
        return self.view.ranks

    @property
    def result(self) -> nn.Module:
        """The network that a run evaluates and saves: the average, if there is one."""
        return self.state.student if self.state.average is None else self.state.average.module

    def train_step(self, step: int) -> Tensor:
        """Update the student with batch ``step``; returns the loss as a scalar on the device, without waiting."""
        state, context, ranks = self.state, self.accelerator.context, self.ranks
        purpose = "step" if ranks.is_main else f"step of rank {ranks.rank}"
        torch.manual_seed(Stream(self.seed, purpose, step).word() >> 1)  # for networks with dropout
        torch.compiler.cudagraph_mark_step_begin()  # outputs of the last step's CUDA graphs may be overwritten
        state.optimizer.zero_grad(set_to_none=True)
        batch = self.view.batch(step)
        x = normalize(batch.images, *self.normalization)
        target = self.targets(batch, x)
        with autocast(context.device, self.accelerator.precision):
            logits = self.forward(x)
        loss = ranks.scale_loss(self.loss(logits, target), self.view.batch_size)
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.scheduler.step()
        if state.average is not None:
            state.average.update_parameters(state.student)
        return ranks.mean(loss.detach())

    def mean_loss(self) -> float:
        """Return the mean loss since the last line of the log, 0 without a step; waits for the device."""
        if not self.state.losses:
            return 0.0
        losses = torch.stack(self.state.losses)
        mean = float(losses.double().mean())
        if math.isfinite(mean):
            return mean
        first = int((~torch.isfinite(losses)).nonzero()[0])
        step = self.state.step - len(losses) + first
        keys = [patch_key(int(index)) for index in self.view.indices(step)]
        raise NonFiniteLossError(
            f"the loss became {float(losses[first])} at step {step}; lower optim.lr or use train.precision fp32, and "
            f"start again; the step's samples are {', '.join(keys[:3])} …",
            {"step": step, "loss": str(float(losses[first])), "samples": keys},
        )

    def fit(
        self,
        out: Path,
        log: MetricsLog,
        config: Config | SupervisedConfig,
        metadata: dict[str, Any],
        measure: Measure | None = None,
    ) -> None:
        """Train from ``state.step`` to the last step: log, evaluate, save checkpoints, stop on a signal.

        ``out`` is the run directory; ``metadata`` is kept in each checkpoint beside the state; ``measure`` evaluates
        the result every ``config.eval.every`` samples. Only time spent in steps counts as training time.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
            InterruptedRun: SIGINT or SIGTERM came; a checkpoint was written.
        """
        state, batch_size, every = self.state, self.view.batch_size, config.eval.every
        state.student.train()
        saved_at, first, interval = time.monotonic(), state.step, 0.0
        with progress_bar("samples", self.steps * batch_size) as update, _stop_signals() as received:
            while state.step < self.steps:
                started = time.perf_counter()
                state.losses.append(self.train_step(state.step))
                state.step += 1
                at_log = state.step % config.train.log_steps == 0 or state.step == self.steps
                mean = self.mean_loss() if at_log else 0.0  # waits for the device, so it is part of the time
                elapsed = time.perf_counter() - started
                state.seconds += elapsed
                interval += elapsed
                if at_log:
                    rate = (state.step - first) / interval * batch_size
                    lr = state.scheduler.get_last_lr()[0]
                    log.write(state.step, {"loss": mean, "lr": lr, "images_per_second": round(rate, 1)})
                    update(state.step * batch_size, f"loss {mean:.3f}")
                    state.losses.clear()
                    first, interval = state.step, 0.0
                if measure is not None and every and state.step * batch_size % every < batch_size:
                    log.write(state.step, measure(self.result))
                stopped = self.ranks.any(bool(received))
                if stopped or time.monotonic() - saved_at >= config.train.checkpoint_seconds:
                    self.save(out, metadata)
                    saved_at = time.monotonic()
                if stopped:
                    self.ranks.any(False)  # a rank that ends ends all, so it waits until the main rank has saved
                    raise InterruptedRun(f"stopped at step {state.step} of {self.steps}")
            self.save(out, metadata)

    def save(self, out: Path, metadata: dict[str, Any]) -> None:
        """Write a checkpoint on the main rank."""
        if self.ranks.is_main:
            self.mean_loss()
            save_checkpoint(out, metadata | self.state.state_dict())


def new_network(
    arch: str,
    num_classes: int,
    seed: int,
    purpose: Purpose,
    bn_momentum: float | None = None,
    bn_eps: float | None = None,
) -> nn.Module:
    """Initialize a network from the draws of ``seed`` and ``purpose``.

    A student and its teacher often have the same architecture and seed; their purposes differ, so that the student
    does not start with the teacher's initial weights. Seeds torch's global generator.
    """
    torch.manual_seed(Stream(seed, purpose, 0).word() >> 1)
    network = build_model(arch, num_classes)
    set_batch_norms(network, momentum=bn_momentum, eps=bn_eps)
    return network


def make_trainer(
    config: Config | SupervisedConfig,
    student: nn.Module,
    view: View,
    targets: Targets,
    loss: Loss,
    normalization: tuple[Triple, Triple],
    accelerator: Accelerator,
) -> Trainer:
    """Move ``student`` to the device and return a trainer at step 0."""
    device = accelerator.context.device
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config.optim, student.parameters())
    forward = accelerator.student(student, view.example())  # before the average: DDP replaces batch norms
    average = None
    if (decay := config.train.ema) is not None:
        average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True, device=device)
    state = TrainState(
        student=student,
        average=average,
        optimizer=optimizer,
        scheduler=make_scheduler(config.optim, optimizer, accelerator.steps),
        scaler=accelerator.scaler(),
    )
    return Trainer(
        state=state,
        forward=forward,
        view=view,
        targets=targets,
        loss=loss,
        normalization=normalization,
        accelerator=accelerator,
        seed=config.train.seed,
    )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list in the block; a second signal has its usual effect."""
    received: list[int] = []
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, usual[signum])

    with handling(receive):
        yield received
