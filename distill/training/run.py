"""Run a training command: open the run directory, build or resume the network, train, evaluate, summarize."""

import dataclasses
import functools
import json
import logging
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill.callbacks import Callback, call, require_callbacks
from distill.config.schema import Config, NetworkConfig, StudentConfig, SupervisedConfig
from distill.data.batches import View
from distill.errors import DistillError
from distill.evaluation.sets import Evaluators, Sources
from distill.loggers import closing_loggers, with_board
from distill.models import warn_of_stale_statistics
from distill.optim.schedules import check_own, require_length
from distill.runtime.compile import Accelerator, make_accelerator
from distill.runtime.device import choose_threads
from distill.runtime.distributed import RunContext
from distill.targets.losses import Functions
from distill.targets.targets import Targets
from distill.targets.teacher import Network
from distill.training import run_dir
from distill.training.checkpoint import CHECKPOINT_NAME, require_identity
from distill.training.cost_estimate import MIN_ESTIMATED_STEPS, estimate_cost
from distill.training.extension import require_same_start
from distill.training.patch_sample import keep_sample
from distill.training.resume import restore
from distill.training.run_identity import config_digests, identity_of
from distill.training.seeds import require_same_identity
from distill.training.snapshots import Snapshots, require_reached
from distill.training.trainer import Measure, Purpose, Trainer, new_network
from distill.user_code import attributed
from distill.weights.files import Triple, save_weights, tensors_digest
from manifests import PatchSet
from manifests.format.digest import file_digest
from manifests.support.counts import counted
from manifests.support.files import write_atomically

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objects:
    """Objects of a Python program, each in place of a name or a path in the config. None: the config decides."""

    network: nn.Module | None = None  # to train, with its initial weights
    teacher: Network | None = None
    losses: Functions = dataclasses.field(default_factory=dict)
    evaluation: Sources | None = None  # data sets of pairs of an image and a label, or paths, by name

    def digests(self) -> dict[str, str]:
        """Return the digest of the initial weights, which identifies the run as its config does, if there are any."""
        return {} if self.network is None else {"initial_sha256": tensors_digest(self.network.state_dict())}

    @property
    def can_estimate(self) -> bool:
        """Whether the config alone describes the networks and the loss, so that the cost can be estimated."""
        return self.network is None and self.teacher is None and not self.losses


NO_OBJECTS = Objects()
CODE = "source of "  # begins the names of digests of the user's code, before the config key that names the code


class Task(ABC):
    """The part of a run that differs between ``distill train`` and ``distill train-teacher``."""

    weights_name: ClassVar[str]  # file of the trained network in the run directory
    prefix: ClassVar[str]  # start of the names of the network's figures in the summary
    figures: ClassVar[tuple[str, ...]]  # names of figures that the summary always has; None if not measured
    purpose: ClassVar[Purpose]  # of the initial weights
    config: Config | SupervisedConfig
    network: StudentConfig | NetworkConfig  # config of the network to train
    num_classes: int
    classes: tuple[str, ...]  # names, if known
    n: int  # samples in an epoch
    size: int  # pixels a side of a sample
    normalization: tuple[Triple, Triple]  # mean and std of RGB in [0, 1]
    inputs: dict[str, str]  # digests by name; a resumed run must have the same
    described: dict[str, Any]  # entries of the summary that identify set and teacher
    patchset: PatchSet | None = None  # the run directory keeps a sample of it
    loss: Callable[[Any, Any], Tensor]  # of the outputs of the network, and of the targets
    objects: Objects = NO_OBJECTS

    @abstractmethod
    def open_view(self) -> AbstractContextManager[View]:
        """Return a context manager that opens the training data and yields the batches of the run."""

    def prepare(self, network: nn.Module) -> nn.Module:
        """Return the new network with the outputs that the loss needs: the network itself, or with features."""
        return network

    @abstractmethod
    def make_targets(self, view: View, accelerator: Accelerator) -> Targets:
        """Return the targets of the batches of ``view``. ``accelerator`` prepares the network of a teacher."""

    @abstractmethod
    def open_evaluator(self, accelerator: Accelerator) -> Evaluators | None:
        """Read and check the evaluation data. Return evaluators, or None without evaluation data."""

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""
        return self.config.train.steps(self.n, self.config.data.batch_size)


def run(
    open_task: Callable[[], Task],
    out: Path,
    context: RunContext,
    *,
    resume: bool,
    several: Sequence[Path] = (),
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train the task that ``open_task`` returns, in the run directory ``out``. Return the summary of the run.

    A finished run is not trained again, unless it has become longer. If the folders of ``several`` seeds are given,
    first check that the runs can have a mean.
    """
    require_callbacks(callbacks)
    with run_dir.run_directory(out, resume, context.ranks), attributed():
        task = open_task()
        own = with_board(callbacks, task.config.train.tensorboard) if context.ranks.is_main else ()
        with closing_loggers(own):
            summary = _run(task, out, context, several, own)
            call(own, "on_end", summary)
    return summary


def _run(
    task: Task, out: Path, context: RunContext, several: Sequence[Path], callbacks: Sequence[Callback]
) -> dict[str, Any]:
    config, ranks, objects = task.config, context.ranks, task.objects
    require_length(config.optim, task.steps, config.data.batch_size, ranks.world_size)
    require_reached(config.train.snapshots, config.train.num_samples(task.n))
    task.inputs |= {CODE + key: digest for key, digest in check_own(config.optim, task.steps).items()}
    norms = {"momentum": task.network.bn_momentum, "eps": task.network.bn_eps}
    arch = task.network.arch if objects.network is None else objects.network
    network = new_network(arch, task.num_classes, config.train.seed, task.purpose, **norms)
    prepared = task.prepare(network)
    identity = identity_of(config, **task.inputs)
    ranks.require_same(identity)
    samples = task.steps * config.data.batch_size
    state, done = ranks.broadcast(lambda: run_dir.read_progress(out, task.weights_name, identity, prepared, samples))
    if state is not None:
        require_same_start(config, state, task.n, out / CHECKPOINT_NAME)
    if done is not None:
        return done
    if context.device.type == "cpu" and ranks.world_size == 1:
        choose_threads(state)
    warn_of_stale_statistics(task.network.bn_momentum, task.steps)
    is_long = task.steps >= MIN_ESTIMATED_STEPS
    can_estimate = objects.can_estimate and prepared is network
    if state is None and is_long and ranks.world_size == 1 and can_estimate:
        logger.info(f"estimated cost: {estimate_cost(config, n=task.n, size=task.size, device=context.device)}")
    accelerator = make_accelerator(context, config.train.precision, config.train.compile, task.steps)
    evaluator = task.open_evaluator(accelerator)
    if several and ranks.is_main:
        more = {"data_sha256": task.inputs.get("data"), "eval_sha256": evaluator.data.sha256 if evaluator else None}
        more["eval_transform"] = evaluator.transform if evaluator else None
        require_same_identity(out.parent, config, task.inputs | more, several)
    with task.open_view() as view:
        targets = task.make_targets(view, accelerator)
        trainer = Trainer(config, prepared, view, targets, task.loss, task.normalization, accelerator)
        _train(task, trainer, out, state, evaluator.measure if evaluator else None, callbacks)
    targets.require_unchanged()
    figures, confusions = evaluator.evaluate(trainer.result) if evaluator else ({}, {})
    if confusions and ranks.is_main:
        write_atomically(out / run_dir.CLASSES_NAME, (json.dumps(confusions) + "\n").encode())
    return ranks.broadcast(lambda: _finish(task, trainer, figures, out))


def _train(
    task: Task, trainer: Trainer, out: Path, checkpoint: Any, measure: Measure | None, callbacks: Sequence[Callback]
) -> None:
    config, view, ranks = task.config, trainer.view, trainer.ranks
    view_identity = {"view": json.dumps(view.describe(), sort_keys=True)}
    ranks.require_same(view_identity | {"precision": trainer.accelerator.precision})
    arithmetic = trainer.accelerator.describe()
    if checkpoint is not None:
        require_identity(checkpoint, view_identity, out)
        if checkpoint["arithmetic"] != arithmetic:
            before = checkpoint["arithmetic"]
            logger.info(f"the run continues with {arithmetic} instead of {before}: weights will differ in rounding")
    logger.debug(config.to_yaml().rstrip())
    logger.debug(f"{counted(trainer.steps, 'step')} of {view.batch_size} samples; arithmetic: {arithmetic}")
    restore(trainer, out, checkpoint)
    if checkpoint is not None:
        if ranks.is_main:  # of a run that is extended
            (out / run_dir.SUMMARY_NAME).unlink(missing_ok=True)
        logger.info(f"the run continues at step {trainer.state.step} of {trainer.steps}")
    log = run_dir.MetricsLog(out, view.batch_size, enabled=ranks.is_main, callbacks=callbacks)
    saved = {"identity": identity_of(config, **task.inputs) | view_identity, "arithmetic": arithmetic}
    trainer.save(out, saved)  # from now on the folder belongs to this run
    if ranks.is_main:
        write_atomically(out / run_dir.CONFIG_NAME, config.to_yaml().encode())
        if task.patchset is not None:
            keep_sample(task.patchset, out)
    call(callbacks, "on_start", out, config.model_dump(mode="json"), trainer.state.step * view.batch_size)
    snapshots = _snapshots(task, trainer, out)
    if snapshots is not None and ranks.is_main:
        snapshots.log_missing(trainer.state.step)
    trainer.fit(out, log, saved, measure, None if snapshots is None else snapshots.keep)


def _snapshots(task: Task, trainer: Trainer, out: Path) -> Snapshots | None:
    wanted, batch_size = task.config.train.snapshots, task.config.data.batch_size
    if wanted is None:
        return None
    return Snapshots(
        wanted=wanted,
        out=out,
        batch_size=batch_size,
        steps=trainer.steps,
        save=functools.partial(_save_network, task, trainer),
    )


def _save_network(task: Task, trainer: Trainer, path: Path) -> dict[str, Any]:
    """Write the weight file of the trained network. Return the properties that the file records."""
    if not all(bool(torch.isfinite(value).all()) for value in trainer.result.state_dict().values()):
        raise DistillError(
            "the trained network contains weights that are not finite; lower optim.lr and choose another --out"
        )
    network = task.network.described() | {"num_classes": task.num_classes, "classes": list(task.classes)}
    network |= {"data_sha256": task.inputs["data"]} if "data" in task.inputs else {}
    mean, std = trainer.normalization
    save_weights(path, trainer.result, mean=mean, std=std, **network)
    return network


def _finish(task: Task, trainer: Trainer, figures: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the trained network, then the summary, which marks the run as finished. Return the summary."""
    weights = out / task.weights_name
    network = _save_network(task, trainer, weights)
    code = {key: digest for key, digest in task.inputs.items() if key.startswith(CODE)}
    inputs = {key: task.inputs[key] for key in ("logits", "initial_sha256") if key in task.inputs} | code
    state, samples = trainer.state, trainer.state.step * trainer.view.batch_size
    versions = {"distill": metadata.version("single-image-distillation"), "python": platform.python_version()}
    summary = (
        dict.fromkeys(task.figures)
        | figures
        | network
        | task.described
        | ({"code_sha256": {key.removeprefix(CODE): digest for key, digest in code.items()}} if code else {})
        | {"seed": task.config.train.seed}
        | config_digests(task.config, trainer.view, **inputs)
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
    write_atomically(out / run_dir.SUMMARY_NAME, (json.dumps(summary, indent=1) + "\n").encode())
    return summary
