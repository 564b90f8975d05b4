"""The Python interface: ``distill.train``, ``train_teacher``, ``evaluate`` and ``load_network``; see docs/python.md.

Where the programs have a name or a path, these functions also accept an object: a module, a function or a data set.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import distill.commands.evaluate as evaluation
from distill.api import inputs
from distill.api.draft import ConfigLike, Draft, PathLike, to_path
from distill.api.inputs import EvalData, LossLike, TeacherLike, session
from distill.callbacks import Callback
from distill.commands.train import Distillation, check_inputs
from distill.commands.train_teacher import SupervisedTraining
from distill.config.schema import Config, SupervisedConfig
from distill.data.datasets import MapDataset
from distill.data.labelled import load_labelled
from distill.errors import DistillError
from distill.models.own import own_copy
from distill.report import refresh_report
from distill.runtime.device import pick_device
from distill.runtime.distributed import RunContext
from distill.targets.teacher import Network, Teacher, input_triple
from distill.training.run import Objects, run
from manifests import PatchSet
from manifests.remote.urls import is_url

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a run: the trained network, its summary, and its directory."""

    student: nn.Module = dataclasses.field(repr=False)
    """The trained network, on the CPU and in eval mode. For ``distill.train_teacher``, it is the teacher."""
    metrics: dict[str, Any] = dataclasses.field(repr=False)  # the content of summary.json
    out: Path  # the run directory


def train(
    shards: PathLike | PatchSet | MapDataset,
    *,
    config: ConfigLike,
    teacher: TeacherLike | Sequence[TeacherLike] | None = None,
    student: str | nn.Module | None = None,
    loss: LossLike | Sequence[LossLike] | None = None,
    eval: EvalData | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a student on patches with the logits of a teacher, as ``distill train`` does.

    Args:
        shards: the folder or URL of a patch set, a ``PatchSet``, or a map-style data set of images, each uint8
            (size, size, 3). The images of a data set are read once and kept in memory.
        config: the name of a packaged config, a YAML file, or a dict of groups of keys.
        teacher: a weight file, a ``Teacher`` (a module with mean and std), a ``Network``, or a list of these.
        student: the name of a network, or a module that maps images (B, 3, H, W) to logits (B, classes). A copy of
            the module is trained, starting from its weights.
        loss: the ``loss`` group of a config; or a function of the logits of student and teacher, both float32
            (B, classes), that returns a scalar tensor; or a list of these, for their sum.
        eval: labelled images: a path, or a map-style data set of pairs (image, class number); or a mapping of names
            to several of these, the main set first.
        out: the run directory. Default: ``runs/CONFIG-SET-seedN``.
        resume: continue the run in ``out`` if it has begun. A finished run is returned at once.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: values by config key, such as ``{"optim.lr": 0.001}``, as with ``--set``.
        callbacks: objects to tell about the progress, see ``Callback``.

    Raises:
        DistillError: an argument, a file or the user's code is wrong. The message is one line; an exception of the
            user's code is its cause.
        PatchSetError: the patch set cannot be read, or is corrupt.
        KeyboardInterrupt: the run was interrupted and has written a checkpoint.
    """
    draft = Draft(Config, config, settings)
    draft.add(inputs.network_settings("student", student) | inputs.eval_settings(eval))
    with session(device) as context:
        own = inputs.own_teacher(teacher, draft)
        functions = inputs.add_losses(loss, draft) if own is None else {}
        if own is None and isinstance(shards, str) and is_url(shards):
            check_inputs(draft.parse(), functions)  # before the download
        images, set_id, size = inputs.open_shards(shards, context.ranks)
        network: Network | None = None
        if own is not None:  # a check of a loss needs its number of classes
            network = inputs.loaded_teacher(own, draft, size, context)
            functions = inputs.add_losses(loss, draft)
        final = draft.parse()
        module, data = inputs.own_module(student), inputs.own_datasets(eval)
        objects = Objects(network=module, teacher=network, losses=functions, evaluation=data)
        folder = inputs.run_folder(out, f"{draft.name}-{set_id[:8]}-seed{final.train.seed}")
        task = functools.partial(Distillation, final, images, context, objects)
        summary = run(task, folder, context, resume=resume, callbacks=callbacks)
        return _result(folder, Distillation.weights_name, objects, summary, context)


def train_teacher(
    data: PathLike | MapDataset,
    *,
    config: ConfigLike,
    network: str | nn.Module | None = None,
    eval: EvalData | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a network on labelled images, as ``distill train-teacher`` does.

    ``data`` is a path, or a map-style data set of pairs: an image, uint8 (height, width, 3) or a PIL image, and its
    class number. ``network`` is the name of a network, or a module with ``network.num_classes`` of the config as
    outputs. The other arguments, and the errors, are those of ``train``. The network is the result's ``student``, and
    ``out / "teacher.safetensors"`` is its weight file.
    """
    draft = Draft(SupervisedConfig, config, settings)
    draft.add(inputs.network_settings("network", network) | inputs.eval_settings(eval))
    final = draft.parse()
    with session(device) as context:
        objects = Objects(network=inputs.own_module(network), evaluation=inputs.own_datasets(eval))
        folder = inputs.run_folder(out, f"{draft.name}-seed{final.train.seed}")
        source = to_path(data) if isinstance(data, PathLike) else data
        task = functools.partial(SupervisedTraining, final, source, context, objects)
        summary = run(task, folder, context, resume=resume, callbacks=callbacks)
        return _result(folder, SupervisedTraining.weights_name, objects, summary, context)


def evaluate(
    network: PathLike | Network | Teacher,
    data: PathLike | MapDataset,
    *,
    teacher: PathLike | Network | Teacher | None = None,
    size: int | None = None,
    transform: str | Mapping[str, Any] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure a network on labelled images, as ``distill eval --json`` does.

    ``network`` and ``teacher`` are weight files, results of ``load_network``, or modules in a ``Teacher``. ``data``
    is a path, or a map-style data set of pairs (image, class number). Images are resized and cropped to ``size`` px,
    or by ``transform``, a value of the config key ``eval.transform``.
    The result has ``top1``, ``top5`` and, for each class, ``per_class`` in percent. With a ``teacher``, it also has
    ``teacher_top1`` and ``agreement`` in percent, and ``kl_to_teacher`` in nats.
    """
    with session(device) as context:
        fit = None if transform is None else inputs.evaluation_fit(network, transform, size)
        labelled = load_labelled(to_path(data) if isinstance(data, PathLike) else data, fit or size)
        measured, other = (
            None if each is None else inputs.to_network(each, labelled.size, context.device)
            for each in (network, teacher)
        )
        if measured is None:
            raise DistillError("network: is None, expected a weight file or a network; give one")
        return evaluation.evaluate(measured, labelled, None, other, context.device)


def load_network(
    file: PathLike,
    *,
    arch: str | nn.Module | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str = "cpu",
) -> Network:
    """Load a weight file, ours or one of ``distill eval``. Return a ``Network``, which is in eval mode.

    Its attribute ``model`` is the module; ``arch``, ``num_classes``, ``classes``, ``mean`` and ``std`` describe it.
    An argument gives a value that the file does not declare. If ``arch`` is a module, a copy of it gets the weights.
    """
    if arch is not None and not isinstance(arch, str | nn.Module):
        found = f"is {type(arch).__name__}, expected the name of a network or a torch.nn.Module"
        raise DistillError(f"arch: {found}; for a class, give an instance")
    given = [None if each is None else input_triple(name, each) for name, each in (("mean", mean), ("std", std))]
    module = own_copy(arch) if isinstance(arch, nn.Module) else arch
    return evaluation.load_network(to_path(file), module, given[0], given[1], pick_device(device))


def _result(
    out: Path, weights_name: str, objects: Objects, summary: dict[str, Any], context: RunContext
) -> TrainResult:
    """Write the report of a run, and load the trained network from its weight file."""
    if context.ranks.is_main:
        logger.info(refresh_report(out))
    trained = evaluation.load_network(out / weights_name, objects.network, None, None, torch.device("cpu"))
    return TrainResult(student=trained.model.requires_grad_(True), metrics=summary, out=out)


__all__ = ["Callback", "Network", "Teacher", "TrainResult", "evaluate", "load_network", "train", "train_teacher"]
