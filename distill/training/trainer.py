"""Train a network: compute steps, and log, evaluate, save and stop between steps."""

import copy
import dataclasses
import json
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.augment import normalize
from distill.config.schema import Config, SupervisedConfig
from distill.data.batches import View
from distill.errors import DistillError
from distill.models import build_model, set_batch_norms
from distill.models.arch import is_own
from distill.models.features import Outputs, WithFeatures
from distill.optim.config import OwnConfig
from distill.optim.optimizers import make_optimizer
from distill.optim.own import plain_state
from distill.optim.schedules import make_scheduler
from distill.runtime.compile import Accelerator
from distill.runtime.device import autocast
from distill.runtime.randomness import Stream
from distill.targets.losses import own_terms
from distill.targets.targets import Targets
from distill.training.checkpoint import save_checkpoint
from distill.training.run_dir import BAD_BATCH_NAME, MetricsLog
from distill.user_code import guarded
from distill.weights.files import Triple
from manifests.format.schema import patch_key
from manifests.support.console import note, progress_bar
from manifests.support.files import write_atomically
from manifests.support.processes import handling

Purpose = Literal["init", "init from labels"]  # of random initial weights: of a student, or of a network for labels
Measure = Callable[[nn.Module], dict[str, float]]  # evaluates a network and returns figures by name, first top-1
Keep = Callable[[int], None]
logger = logging.getLogger(__name__)


class InterruptedRun(Exception):  # noqa: N818 - not an error: a signal asked the run to stop
    """A signal stopped the run, and the run has written a checkpoint."""


@dataclasses.dataclass(eq=False)
class TrainState:
    """Everything that training steps change."""

    student: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: GradScaler
    average: AveragedModel | None  # moving average of the weights
    projections: nn.Module | None = None  # of the student's features, for feature losses
    step: int = 0
    seconds: float = 0.0  # of training
    losses: list[Tensor] = dataclasses.field(default_factory=list)  # since the last row of the log, on the device

    def state_dict(self) -> dict[str, Any]:
        """Return a dict by name of the field, for a checkpoint: tensors, plain values, and dicts of these."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["losses"] = torch.stack(self.losses) if self.losses else torch.zeros(0)
        values = {name: value for name, value in values.items() if name != "projections" or value is not None}
        return {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in values.items()}


@dataclasses.dataclass(eq=False)
class Trainer:
    """Train ``student`` on the batches of ``view`` towards ``targets`` for ``accelerator.steps`` steps.

    With feature losses, ``student`` is a ``WithFeatures``, whose projections are trained too.
    """

    config: Config | SupervisedConfig
    student: dataclasses.InitVar[nn.Module]
    view: View
    targets: Targets
    loss: Callable[[Any, Any], Tensor]  # of the outputs of ``student`` and the targets
    normalization: tuple[Triple, Triple]  # mean and std of RGB in [0, 1]
    accelerator: Accelerator

    def __post_init__(self, student: nn.Module) -> None:
        """Move ``student`` to the device. Create the optimizer, the schedule and the rest of the initial state."""
        config, accelerator = self.config, self.accelerator
        self.ranks, self.steps, device = self.view.ranks, accelerator.steps, accelerator.context.device
        student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trained = student  # has all parameters of the optimizer
        optimizer = make_optimizer(config.optim, student)
        parts, example = config.optim.accumulate or 1, self.view.example()
        self.parts = [rows.to(device) for rows in self.ranks.split_rows(self.view.batch_size, parts)]
        self.forward = accelerator.student(student, example, parts)  # before the average: DDP replaces norms
        network = config.student if isinstance(config, Config) else config.network
        if is_own(network.arch):
            self.forward = guarded(self.forward, f"network {network.arch}")
        self.backward: Callable[[Tensor], None] = Tensor.backward
        if is_own(network.arch) or (isinstance(config, Config) and own_terms(config.loss)):
            self.backward = guarded(self.backward, "the backward pass of the loss and the network")
        projections: nn.Module | None = None
        if isinstance(student, WithFeatures):
            projections = student.adapters if list(student.adapters.parameters()) else None
            student = student.network
        average: AveragedModel | None = None
        if (decay := config.train.ema) is not None:
            update = get_ema_multi_avg_fn(decay)
            average = AveragedModel(student, multi_avg_fn=update, use_buffers=True, device=device)
        scheduler = make_scheduler(config.optim, optimizer, self.steps, self.view.batch_size)
        # the loss scale of fp16 may skip the first step of the optimizer, which torch takes for an error of ours
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)`", UserWarning)
        scaler = torch.amp.GradScaler(device.type, enabled=accelerator.precision == "fp16")
        self.state = TrainState(student, optimizer, scheduler, scaler, average, projections)

    @property
    def result(self) -> nn.Module:
        """The network that a run evaluates and saves: the moving average if train.ema is set, else the student."""
        return self.state.student if self.state.average is None else self.state.average.module

    def train_step(self, step: int) -> Tensor:
        """Update the student with batch ``step``. Return the loss as a scalar, without waiting for the device."""
        state, device, ranks = self.state, self.accelerator.context.device, self.ranks
        purpose = "step" if ranks.is_main else f"step of rank {ranks.rank}"
        torch.manual_seed(Stream(self.config.train.seed, purpose, step).word() >> 1)  # for networks with dropout
        if device.type == "cuda":  # outputs of the last step's CUDA graphs may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
        state.optimizer.zero_grad(set_to_none=True)
        batch = self.view.batch(step)
        x = normalize(batch.images, *self.normalization)
        loss = self._backward(x, self.targets(batch, x))
        if (clip_norm := self.config.optim.clip_norm) is not None:
            state.scaler.unscale_(state.optimizer)
            parameters = [value for group in state.optimizer.param_groups for value in group["params"]]
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.scheduler.step()
        if state.average is not None:
            state.average.update_parameters(state.student)
        return ranks.mean(loss)

    def _backward(self, x: Tensor, target: Tensor | Outputs) -> Tensor:
        """Compute the gradient of this rank's rows ``x`` (B, 3, H, W) towards ``target``. Return the scaled loss.

        Each of ``parts`` has its own forward and backward pass, and the gradients of the parts are added. A loss is a
        mean over rows, so a part counts by its share of the rows.
        """
        losses = []
        for rows in self.parts:
            several = len(self.parts) > 1
            part = x[rows].contiguous(memory_format=torch.channels_last) if several else x
            with autocast(self.accelerator.context.device, self.accelerator.precision):
                outputs = self.forward(part)
            loss = self.loss(outputs, _rows_of(target, rows) if several else target)
            loss = self.ranks.scale_loss(loss * (len(part) / len(x)) if several else loss, self.view.batch_size)
            self.backward(self.state.scaler.scale(loss))
            losses.append(loss.detach())
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def mean_loss(self, out: Path) -> float:
        """Wait for the device and return the mean loss since the last row of the log; 0 if there was no step.

        If a loss is NaN or infinite, write the step's sample keys into a file in ``out``, and raise DistillError.
        """
        if not self.state.losses:
            return 0.0
        losses = torch.stack(self.state.losses)
        mean = float(losses.double().mean())
        if math.isfinite(mean):
            return mean
        first = int((~torch.isfinite(losses)).nonzero()[0])
        step = self.state.step - len(losses) + first
        keys = [patch_key(int(index)) for index in self.view.indices(step)]
        fix = "lower optim.lr" + ("" if self.accelerator.precision == "fp32" else " or set train.precision fp32")
        where, details = out / BAD_BATCH_NAME, {"step": step, "loss": str(float(losses[first])), "samples": keys}
        if self.ranks.is_main:
            write_atomically(where, (json.dumps(details, indent=1) + "\n").encode())
        found = f"the loss became {details['loss']} at step {step}; {fix}, and choose another --out"
        raise DistillError(f"{found}; samples of this step: {', '.join(keys[:3])} … ({where} lists all)")

    def fit(
        self, out: Path, log: MetricsLog, metadata: dict[str, Any], measure: Measure | None, keep: Keep | None = None
    ) -> None:
        """Train from step ``state.step`` to the last step. Log, evaluate, save checkpoints, and stop on a signal.

        ``out`` is the run directory. Each checkpoint contains ``metadata``. ``measure`` evaluates ``result`` whenever
        ``eval.every`` samples were trained. The main rank calls ``keep`` after each step with the number of steps.
        Only the time of steps counts as training time.

        Raises:
            DistillError: the loss is NaN or infinite.
            InterruptedRun: the process received SIGINT or SIGTERM, and has written a checkpoint.
        """
        state, train, every, batch_size = self.state, self.config.train, self.config.eval.every, self.view.batch_size
        state.student.train()
        saved_at, first, interval, shown = time.monotonic(), state.step, 0.0, ""
        with progress_bar("samples", self.steps * batch_size) as update, _stop_signals() as received:
            update(state.step * batch_size)
            while state.step < self.steps:
                started = time.perf_counter()
                state.losses.append(self.train_step(state.step))
                state.step += 1
                at_end = state.step == self.steps
                at_log = at_end or state.step % train.log_steps == 0
                mean = self.mean_loss(out) if at_log else 0.0  # waits for the device, so this is part of the time
                elapsed = time.perf_counter() - started
                state.seconds += elapsed
                interval += elapsed
                if at_log:
                    rate = (state.step - first) / interval * batch_size
                    lr = state.scheduler.get_last_lr()[0]
                    log.write(state.step, {"loss": mean, "lr": lr, "images_per_second": round(rate, 1)})
                    state.losses.clear()
                    first, interval, shown = state.step, 0.0, f"loss {mean:.3f}"
                update(state.step * batch_size, shown)
                if measure is not None and every and (at_end or state.step * batch_size % every < batch_size):
                    figures = measure(self.result)
                    log.write(state.step, figures, "on_evaluation")
                    logger.info(f"step {state.step}: top-1 {next(iter(figures.values())):.2f} %")
                if keep is not None and self.ranks.is_main:
                    keep(state.step)
                stopped = self.ranks.any(bool(received))
                if stopped or time.monotonic() - saved_at >= train.checkpoint_seconds:
                    self.save(out, metadata)
                    log.saved(state.step)
                    saved_at = time.monotonic()
                if stopped:
                    self.ranks.any(False)  # torchrun ends all ranks when one ends: wait until the main rank has saved
                    raise InterruptedRun(f"stopped at step {state.step} of {self.steps}")
            self.save(out, metadata)
            log.saved(state.step)

    def save(self, out: Path, metadata: dict[str, Any]) -> None:
        """Write a checkpoint with ``metadata`` on the main rank.

        Raises:
            DistillError: a loss is not finite, or the state of the user's optimizer cannot be kept.
        """
        if self.ranks.is_main:
            self.mean_loss(out)
            if isinstance(optim := self.config.optim, OwnConfig):
                plain_state(optim.function, self.state.optimizer)
            save_checkpoint(out, metadata | self.state.state_dict())


def _rows_of(target: Tensor | Outputs, rows: Tensor) -> Tensor | Outputs:
    return tuple(each[rows] for each in target) if isinstance(target, tuple) else target[rows]


def new_network(
    arch: str | nn.Module, num_classes: int, seed: int, purpose: Purpose, **norms: float | None
) -> nn.Module:
    """Return a network with random weights, drawn for ``seed`` and ``purpose``. Also set torch's seed.

    ``norms`` are arguments of ``set_batch_norms``. A student and its teacher often have the same architecture and
    seed. Different purposes give different weights, so the student does not start with the teacher's initial weights.
    If ``arch`` is a module of the user, return a copy of it with its own weights.
    """
    torch.manual_seed(Stream(seed, purpose, 0).word() >> 1)
    network = copy.deepcopy(arch).train() if isinstance(arch, nn.Module) else build_model(arch, num_classes)
    set_batch_norms(network, **norms)
    return network


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list while the block runs. The previous handler gets a repeated signal."""
    received: list[int] = []
    usual: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, usual[signum])
        with suppress(OSError, RuntimeError):  # stderr is closed, or the signal interrupted a write to it
            note("stopping after this step; press Ctrl-C again to stop at once, without a new checkpoint")

    with handling(receive):
        yield received
