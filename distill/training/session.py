"""One session of a run in its directory: its log and checkpoints, and how it is stopped."""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from distill.errors import DistillError, NonFiniteLossError
from distill.evaluation.evaluator import Measure
from distill.training.checkpoint import CHECKPOINT_NAME, holds_checkpoint, save_checkpoint
from distill.training.trainer import Loop, Progress, require_finite, run_loop
from manifests.format.canonical_json import parse_json
from manifests.support.console import Update, progress_bar
from manifests.support.files import PART_PREFIX, name_as_text, read_regular_file, write_atomically
from manifests.support.system_files import entries

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"
SUMMARY_NAME = "summary.json"
BOARD_NAME = "tensorboard"
SUMMARY_KEYS = frozenset({"samples_seen", "images_per_second", "seconds", "seed", "sha256"})
BAD_BATCH_NAME = "nonfinite.json"

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class InterruptedRun(Exception):  # noqa: N818 - it is no error: the run was asked to stop, and saved itself
    """The run was asked to stop and has written a checkpoint."""


def check_folder(out: Path, resume: bool) -> None:
    """Make sure a run may begin, or go on, in ``out``.

    Raises:
        DistillError: its path is no text, it is no folder, or it holds something and ``resume`` was not asked for.
    """
    if name_as_text(str(out)) != str(out):
        raise DistillError(
            f"{out}: its path is not UTF-8 text, and weights could not be read from there; choose another --out"
        )
    try:
        occupied = out.exists() and any(not item.name.startswith(PART_PREFIX) for item in entries(out))
    except OSError as error:
        raise DistillError(f"{out}: cannot be a run directory: {error.strerror}") from error
    if occupied and not resume:
        raise DistillError(f"{out}: is not empty; add --resume to go on with its run, or choose another --out")
    if occupied and not holds_checkpoint(out):
        raise DistillError(
            f"{out}: holds files but no {CHECKPOINT_NAME}, so no run to go on with; choose another --out"
        )


def finished_summary(out: Path) -> dict[str, Any] | None:
    """The summary of a run that has ended, else None.

    Raises:
        DistillError: it is damaged.
    """
    path = out / SUMMARY_NAME
    if not path.exists():
        return None
    summary = parse_json(read_regular_file(path, 1 << 20), str(path))
    if not isinstance(summary, dict) or any(summary.get(key) is None for key in SUMMARY_KEYS):
        raise DistillError(f"{path}: damaged; delete it to write it again from the last checkpoint")
    return summary


def open_board(out: Path, samples: int) -> "SummaryWriter":
    """A log for TensorBoard in ``out``, whose steps are samples; what it has from ``samples`` on is void.

    Raises:
        DistillError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise DistillError("train.tensorboard: it is not installed; run pip install tensorboard") from error
    return SummaryWriter(str(out / BOARD_NAME), purge_step=samples)


@dataclasses.dataclass(kw_only=True)
class Session:
    """What happens around the steps: logging, evaluation every ``every`` samples, checkpoints, signals.

    Only the first rank writes.
    """

    loop: Loop
    progress: Progress
    out: Path
    identity: dict[str, Any]
    arithmetic: dict[str, Any]
    measure: Measure | None
    every: int
    checkpoint_seconds: float
    log_steps: int
    board: "SummaryWriter | None"

    def train(self) -> None:
        """Train to the last step and write a final checkpoint.

        Raises:
            DistillError: the loss is no longer a finite number.
            InterruptedRun: SIGINT or SIGTERM came; a checkpoint was written.
        """
        try:
            self._train()
        except NonFiniteLossError as error:
            where = self.out / BAD_BATCH_NAME
            if self.loop.ranks.first:
                write_atomically(where, (json.dumps(error.details, indent=1) + "\n").encode())
            raise DistillError(f"{error}; all of them are in {where}") from error

    def _train(self) -> None:
        self._batch = self.loop.view.batch_size
        self._saved_at = time.monotonic()
        with (
            progress_bar("samples", self.loop.steps * self._batch) as update,
            (self.out / METRICS_NAME if self.loop.ranks.first else Path(os.devnull)).open("a") as log,
            _signals() as received,
        ):
            run_loop(
                self.loop,
                self.progress,
                log_steps=self.log_steps,
                on_log=lambda progress, values: self._log(log, update, values),
                on_step=lambda progress: self._after_step(log, received),
            )
            self.save()

    def _log(self, log: IO[str], update: Update, values: dict[str, Any]) -> None:
        rate = values["steps_per_second"] * self._batch
        lr = self.loop.scheduler.get_last_lr()[0]
        self._write(log, {"loss": values["loss"], "lr": lr, "images_per_second": round(rate, 1)})
        update(self.progress.step * self._batch, f"loss {values['loss']:.3f}")

    def _write(self, log: IO[str], row: dict[str, Any]) -> None:
        step = self.progress.step
        log.write(json.dumps({"step": step, "samples": step * self._batch} | row) + "\n")
        log.flush()
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, step * self._batch)
            self.board.flush()

    def _after_step(self, log: IO[str], received: list[int]) -> None:
        samples = self.progress.step * self._batch
        if self.measure is not None and self.every and samples % self.every < self._batch:
            self._write(log, self.measure(self.loop.result))
        stopped = self.loop.ranks.any(bool(received))
        if stopped or time.monotonic() - self._saved_at >= self.checkpoint_seconds:
            self.save()
        if stopped:
            self.loop.ranks.any(False)  # a rank that ends has the others ended, and the first may still be writing
            raise InterruptedRun(f"stopped at step {self.progress.step} of {self.loop.steps}")

    def save(self) -> None:
        """Write a checkpoint. The first one is what makes a folder this run's."""
        if not self.loop.ranks.first:
            return
        require_finite(self.loop, self.progress)  # a checkpoint is always a good one
        state = {
            "identity": self.identity,
            "arithmetic": self.arithmetic,
            "student": self.loop.student.state_dict(),
            "optimizer": self.loop.optimizer.state_dict(),
            "scaler": self.loop.scaler.state_dict(),
            "scheduler": self.loop.scheduler.state_dict(),
            "average": None if self.loop.average is None else self.loop.average.state_dict(),
            "step": self.progress.step,
            "seconds": self.progress.seconds,
            "losses": self.progress.losses,
        }
        save_checkpoint(self.out, state)
        self._saved_at = time.monotonic()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; the second one acts as usual."""

    received: list[int] = []

    def receive(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, previous[signum])

    previous: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
