"""The flow of a run, for all training commands: open the directory, build, resume, train, evaluate, summarize."""

import json
import logging
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import torch

from distill.config.schema import Config, NetworkConfig, StudentConfig, SupervisedConfig
from distill.data.batches import View
from distill.errors import DistillError, NonFiniteLossError
from distill.evaluation.evaluator import Evaluator
from distill.models import warn_of_stale_statistics
from distill.runtime.compile import Accelerator, make_accelerator
from distill.runtime.context import RunContext
from distill.runtime.threads import choose_threads
from distill.targets.losses import Loss
from distill.targets.targets import Targets
from distill.training.checkpoint import require_identity
from distill.training.cost_estimate import MIN_ESTIMATED_STEPS, estimate_cost
from distill.training.metrics_log import MetricsLog
from distill.training.resume import restore
from distill.training.run_dir import (
    BAD_BATCH_NAME,
    CLASSES_NAME,
    CONFIG_NAME,
    SUMMARY_NAME,
    read_progress,
    run_directory,
)
from distill.training.run_identity import identity_of
from distill.training.trainer import Purpose, Trainer, make_trainer, new_network
from distill.weights.files import Triple, save_weights
from manifests.format.digest import file_digest
from manifests.support.counts import counted
from manifests.support.files import write_atomically

logger = logging.getLogger(__name__)


class Task(ABC):
    """What a training command trains and on what; ``run`` does all that is common to them.

    Attributes:
        weights_name: File name of the result in the run directory.
        prefix: What the names of the result's figures in the summary start with.
        figures: Names of figures that are None in the summary if nothing measured them.
        purpose: Of the initial weights.
        network: The config of the network to train; ``num_classes`` and ``classes`` are its classes.
        n, size: Samples of an epoch, and their side in pixels.
        normalization: Mean and std of RGB in [0, 1].
        inputs: Digests that a resumed run must share, by name.
    """

    weights_name: ClassVar[str]
    prefix: ClassVar[str]
    figures: ClassVar[tuple[str, ...]]
    purpose: ClassVar[Purpose]
    config: Config | SupervisedConfig
    network: StudentConfig | NetworkConfig
    num_classes: int
    classes: tuple[str, ...]
    n: int
    size: int
    normalization: tuple[Triple, Triple]
    inputs: dict[str, str]

    @abstractmethod
    def open_view(self) -> AbstractContextManager[View]:
        """Open the training data in the order of the run."""

    @abstractmethod
    def make_targets(self, view: View, accelerator: Accelerator) -> Targets:
        """Return the source of the targets of ``view``."""

    @abstractmethod
    def make_loss(self) -> Loss:
        """Return the loss of logits and targets."""

    @abstractmethod
    def open_evaluator(self, accelerator: Accelerator) -> Evaluator | None:
        """Read and check the evaluation data; return None if the config has none."""

    @abstractmethod
    def origin(self, view: View, accelerator: Accelerator) -> dict[str, Any]:
        """Return the part of the summary that says what the result was made from."""

    def write_sample(self, out: Path) -> None:  # noqa: B027 - optional
        """Write a sample of the training data into ``out``, once the run has begun there."""

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""
        return self.config.train.steps(self.n, self.config.data.batch_size)


def run(open_task: Callable[[], Task], out: Path, context: RunContext, *, resume: bool) -> dict[str, Any]:
    """Train the task in the run directory ``out`` and return the summary; all ranks call this.

    A finished run is not trained again: its summary is returned.
    """
    with run_directory(out, resume, context.ranks):
        return _run(open_task(), out, context)


def _run(task: Task, out: Path, context: RunContext) -> dict[str, Any]:
    config, ranks = task.config, context.ranks
    norms = task.network.bn_momentum, task.network.bn_eps
    network = new_network(task.network.arch, task.num_classes, config.train.seed, task.purpose, *norms)
    identity = identity_of(config, **task.inputs)
    ranks.require_same(identity)
    state, done = ranks.broadcast(lambda: read_progress(out, task.weights_name, identity, network))
    if done is not None:  # the run has ended before
        return done
    if context.device.type == "cpu" and ranks.world_size == 1:
        choose_threads(state)
    warn_of_stale_statistics(task.network.bn_momentum, task.steps)
    if state is None and task.steps >= MIN_ESTIMATED_STEPS and ranks.world_size == 1:
        logger.info(f"estimated: {estimate_cost(config, n=task.n, size=task.size, device=context.device)}")
    accelerator = make_accelerator(context, config.train.precision, config.train.compile, task.steps)
    evaluator = task.open_evaluator(accelerator)
    with task.open_view() as view:
        targets = task.make_targets(view, accelerator)
        trainer = make_trainer(config, network, view, targets, task.make_loss(), task.normalization, accelerator)
        _train(task, trainer, out, identity, state, evaluator)
    targets.require_unchanged()
    figures, confusions = evaluator.evaluate(trainer.result) if evaluator else ({}, {})
    if confusions and ranks.is_main:
        write_atomically(out / CLASSES_NAME, (json.dumps(confusions) + "\n").encode())
    return ranks.broadcast(lambda: _finish(task, trainer, figures, out))


def _train(
    task: Task,
    trainer: Trainer,
    out: Path,
    identity: dict[str, Any],
    checkpoint: dict[str, Any] | None,
    evaluator: Evaluator | None,
) -> None:
    """Train to the last step, from ``checkpoint`` if there is one."""
    config, view, ranks = task.config, trainer.view, trainer.ranks
    view_identity = {"view": json.dumps(view.describe(), sort_keys=True)}
    ranks.require_same(view_identity | {"precision": trainer.accelerator.precision})
    arithmetic = trainer.accelerator.describe()
    if checkpoint is not None:
        require_identity(checkpoint, view_identity, out)
        if checkpoint["arithmetic"] != arithmetic:
            logger.info(
                f"going on with {arithmetic} after {checkpoint['arithmetic']}: weights will differ in rounding"
            )
    logger.debug(config.to_yaml().rstrip())
    logger.debug(f"{counted(trainer.steps, 'step')} of {view.batch_size}; arithmetic {arithmetic}")
    restore(trainer, out, checkpoint)
    step, tensorboard = trainer.state.step, config.train.tensorboard
    log = MetricsLog(out, view.batch_size, step, tensorboard=tensorboard, enabled=ranks.is_main)
    saved = {"identity": identity | view_identity, "arithmetic": arithmetic}
    try:
        trainer.save(out, saved)  # from now on the folder is this run's
        if ranks.is_main:
            write_atomically(out / CONFIG_NAME, config.to_yaml().encode())
            task.write_sample(out)
        trainer.fit(out, log, config, saved, evaluator.measure if evaluator else None)
    except NonFiniteLossError as error:
        where = out / BAD_BATCH_NAME
        if ranks.is_main:
            write_atomically(where, (json.dumps(error.details, indent=1) + "\n").encode())
        raise DistillError(f"{error}; all of them are in {where}") from error


def _finish(task: Task, trainer: Trainer, figures: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the result and, last of all, the summary, which says that the run has ended; return the summary."""
    if not all(bool(torch.isfinite(value).all()) for value in trainer.result.state_dict().values()):
        raise DistillError("the result holds weights that are no finite numbers; lower optim.lr and start again")
    weights, state = out / task.weights_name, trainer.state
    network = task.network.described() | {"num_classes": task.num_classes, "classes": list(task.classes)}
    network |= {"data_sha256": task.inputs["data"]} if "data" in task.inputs else {}
    mean, std = trainer.normalization
    save_weights(weights, trainer.result, mean=mean, std=std, **network)
    samples = state.step * trainer.view.batch_size
    versions = {"distill": metadata.version("single-image-distillation"), "python": platform.python_version()}
    summary = (
        dict.fromkeys(task.figures)
        | figures
        | network
        | task.origin(trainer.view, trainer.accelerator)
        | {
            "weights": "last step" if state.average is None else "average (train.ema) at the last step",
            "size": trainer.view.size,
            "sha256": file_digest(weights),
            "samples_seen": samples,
            "images_per_second": round(samples / state.seconds, 1),
            "seconds": round(state.seconds, 1),
            "environment": versions | {"machine": platform.machine()} | trainer.accelerator.describe(),
        }
    )
    write_atomically(out / SUMMARY_NAME, (json.dumps(summary, indent=1) + "\n").encode())
    return summary
