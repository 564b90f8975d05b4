"""``distill train``: train a student on a patch set and the logits of a teacher, computed now or stored before."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from distill.commands.student import prepare_student, require_complete
from distill.config.schema import Config
from distill.data.batches import Source, View, resident
from distill.data.cache import open_source
from distill.data.datasets import DatasetImages, MapDataset
from distill.data.labelled import Size, require_data
from distill.errors import DistillError
from distill.evaluation import evaluator as evaluation
from distill.evaluation.sets import Evaluators, Sources, image_size
from distill.models import require_size
from distill.models.own import own_sources, require_trainable
from distill.runtime.compile import Accelerator
from distill.runtime.distributed import RunContext
from distill.targets.features import FeatureMatch
from distill.targets.live import loss_of_each, measured_teacher, members_of, require_inputs
from distill.targets.losses import Functions, make_loss
from distill.targets.own_losses import load_functions
from distill.targets.stored_logits import TeacherInfo, open_stored, read_manifest, require_same
from distill.targets.targets import Targets, feature_targets, stored_targets, teacher_targets
from distill.targets.teacher import Network, load_teacher
from distill.training.run import NO_OBJECTS, Objects, Task
from distill.training.run_dir import STUDENT_NAME
from distill.user_code import user_code
from distill.weights.files import Triple
from manifests import PatchSet
from manifests.patchset import open_folder
from manifests.support.counts import counted

logger = logging.getLogger(__name__)


def check_inputs(config: Config, functions: Functions | None = None) -> None:
    """Check the losses, the teacher, the stored logits and the evaluation data before the patch set is downloaded."""
    require_complete(config)
    load_functions(config.loss, config.teacher.num_classes, functions)
    if config.teacher.logits is not None:
        read_manifest(config.teacher.logits)
    if config.teacher.logits is None or config.teacher.weights is not None:
        load_teacher(config.teacher, torch.device("cpu"))
    for source in config.eval.sources().values():
        require_data(source)


class Distillation(Task):
    """Train a student on the patches of a set, with the logits of a teacher as targets."""

    weights_name = STUDENT_NAME
    prefix = "student_"
    figures = ("student_top1", "teacher_top1", "agreement")
    purpose = "init"
    config: Config

    def __init__(
        self, config: Config, shards: Path | DatasetImages, context: RunContext, objects: Objects = NO_OBJECTS
    ) -> None:
        context.ranks.require_rows(config.data.batch_size)
        require_complete(config)
        losses, functions = load_functions(config.loss, config.teacher.num_classes, objects.losses)
        config, objects = config.model_copy(update={"loss": losses}), dataclasses.replace(objects, losses=functions)
        self.config, self._context, self._shards, self.objects = config, context, shards, objects
        self._match: FeatureMatch | None = None
        set_id = self._open_shards(shards)
        teacher = config.teacher
        self.network, self.num_classes = config.student, teacher.num_classes
        self.loss = make_loss(losses, functions)
        self._require_student()
        self._stored = open_stored(teacher, set_id)
        self._teacher: Network | None = objects.teacher
        if self._teacher is None and (self._stored is None or teacher.weights is not None):
            self._teacher = load_teacher(teacher, context.device)
        if self._teacher is not None:
            require_inputs(self._teacher, config.augment.output_size(self.size))
            info = TeacherInfo.model_validate(self._teacher)
            if self._teacher.others and self._teacher.combine == "losses":
                self.loss = loss_of_each(self.loss, [each.weight for each in members_of(self._teacher)])
        if self._stored is not None:
            if self._teacher is not None:
                folder = teacher.logits or Path()
                require_same(folder, "a teacher with sha256", self._stored.teacher.sha256, self._teacher.sha256)
            info = self._stored.teacher
        self._info, self.classes = info, tuple(info.classes)
        self.normalization = student_normalization(config, info)
        logits = "live teacher" if self._stored is None else f"stored logits {self._stored.sha256}"
        self.inputs = {"set_id": set_id, "teacher_sha256": info.sha256, "logits": logits} | objects.digests()
        sources = own_sources(*self._named_networks())
        self.inputs |= sources
        self.described = {"set_id": set_id, "teacher_arch": teacher.arch, "teacher_sha256": info.sha256}
        self.described |= objects.digests() | ({"sources": sources} if sources else {})

    def _named_networks(self) -> list[str]:
        """Return the names of all networks of the run that are built by name."""
        archs = [] if self.objects.network is not None else [self.config.student.arch]
        if self.objects.teacher is None and self._teacher is not None:
            archs += [each.arch for each in members_of(self._teacher)]
        return archs

    def _open_shards(self, shards: Path | DatasetImages) -> str:
        """Set the size and number of the patches. Return the identity of the set, or of the images of a data set."""
        if isinstance(shards, DatasetImages):
            self.n, self.size = len(shards.samples), shards.samples.shape[1]
            return shards.sha256
        self.patchset = open_folder(shards)
        self.n, self.size = self.patchset.manifest.n, self.patchset.manifest.size
        return self.patchset.manifest.set_id

    def _require_student(self) -> None:
        """Check that the student accepts the images and has the classes of the teacher."""
        config, student, size = self.config, self.objects.network, self.config.augment.output_size(self.size)
        if student is None:
            require_size(config.student.arch, self.num_classes, size)
        else:
            require_trainable(student, size, config.student.arch, self.num_classes)

    def open_view(self) -> AbstractContextManager[View]:
        stored_seed = self._stored.view.get("seed") if self._stored else None  # so students of all seeds can use them
        seed = stored_seed if isinstance(stored_seed, int) else self.config.train.seed
        seed = seed if self.config.data.view_seed is None else self.config.data.view_seed
        if isinstance(self._shards, DatasetImages):
            source = resident(self._shards.samples, self.config.data.batch_size, seed, self._context)
            return nullcontext(_make_view(source, self.config, seed))
        return open_view(self.config, open_folder(self._shards), seed, self._context)

    def prepare(self, network: nn.Module) -> nn.Module:
        size = self.config.augment.output_size(self.size)
        prepared = prepare_student(network, self.config, self._teacher, self.objects.network, size)
        self._match = prepared.match
        self.inputs |= prepared.inputs
        self.described |= prepared.described
        return prepared.network

    def make_targets(self, view: View, accelerator: Accelerator) -> Targets:
        folder = self.config.teacher.logits
        if self._stored is None or folder is None:
            teacher = self._teacher or load_teacher(self.config.teacher, self._context.device)
            if self._match is not None:
                return feature_targets(teacher, self._match, self.normalization, view, accelerator)
            return teacher_targets(teacher, self.normalization, view, accelerator)
        return stored_targets(folder, self._stored, view, self._match)

    def open_evaluator(self, accelerator: Accelerator) -> Evaluators | None:
        if self._stored is not None:
            accelerator = dataclasses.replace(accelerator, precision=self._stored.precision)
        self.described["teacher_precision"] = accelerator.precision
        if (own_teacher := self.objects.teacher) is not None:
            size = self.config.augment.output_size(self.size)
            images = torch.zeros(2, 3, size, size, device=self._context.device)
            what = f"network {own_teacher.arch} in {accelerator.precision} (train.precision fp32 avoids 16 bits)"
            with user_code(what), torch.no_grad():
                measured_teacher(own_teacher, self.normalization, size, accelerator)(images)
        own = self.objects.evaluation
        evaluators = open_evaluators(self.config, self.size, self._teacher, self._info, accelerator, own)
        if evaluators is None:
            return None
        if isinstance(self._shards, DatasetImages):
            digests, where = frozenset(self._shards.digests), self._shards.where
        else:
            digests, where = evaluation.packed_digests(open_folder(self._shards)), f"the set {self._shards}"
        for each in evaluators.sets.values():
            evaluation.require_unseen(digests, each.data, where)
        return evaluators


def student_normalization(config: Config, info: TeacherInfo) -> tuple[Triple, Triple]:
    """Return mean and std of the student's images. The default are those of the teacher."""
    return config.student.mean or info.mean, config.student.std or info.std


@contextmanager
def open_view(config: Config, patchset: PatchSet, seed: int, context: RunContext) -> Iterator[View]:
    """Verify and decode ``patchset``. Yield the view of a run: the batches that ``config`` and ``seed`` determine."""
    with open_source(patchset, config.data, seed, context) as source:
        yield _make_view(source, config, seed)


def _make_view(source: Source, config: Config, seed: int) -> View:
    steps = config.train.steps(source.order.n, source.order.batch_size)
    return View(source=source, augment=config.augment, seed=seed, period=-(-steps // config.data.passes))


def open_evaluators(
    config: Config,
    size: int,
    teacher: Network | None,
    info: TeacherInfo,
    accelerator: Accelerator,
    sources: Sources | None = None,
) -> Evaluators | None:
    """Measure the teacher, if given, on all evaluation data. Return evaluators, or None without evaluation data.

    ``size`` is that of the patches in pixels. Images get the size of training images, unless ``eval.transform`` is
    set. The evaluation data is ``sources`` of the user, or the data that the config names. ``teacher.min_top1`` is
    the least top-1 on the main set.
    """
    least, sources = config.teacher.min_top1, sources or config.eval.sources()
    if not sources:
        if least is not None:
            logger.info(f"teacher.min_top1 {least} is not checked without evaluation data; name the data with --eval")
        return None
    sees_same = teacher is None or (teacher.size is None and not teacher.others)
    archs = (config.student.arch, *([config.teacher.arch] if sees_same else []))
    fit = image_size(config.eval.transform, config.augment.output_size(size), info.num_classes, *archs)
    opened = {name: _open_evaluator(config, fit, teacher, info, accelerator, each) for name, each in sources.items()}
    evaluators = Evaluators(opened, None if isinstance(fit, int) else fit.text)
    top1 = evaluators.main.teacher_top1
    if top1 is None:
        logger.info("the teacher is not evaluated, because its weight file is unknown; name the file with --teacher")
    elif least is not None and top1 < least:
        found = f"the teacher's top-1 is {top1:.2f} %, expected at least {least} % (teacher.min_top1)"
        action = "check teacher.mean, teacher.std and the classes of the evaluation data"
        raise DistillError(f"{config.teacher.weights or config.teacher.arch}: {found}; {action}")
    return evaluators


def _open_evaluator(
    config: Config,
    size: Size,
    teacher: Network | None,
    info: TeacherInfo,
    accelerator: Accelerator,
    source: Path | MapDataset,
) -> evaluation.Evaluator:
    """Measure the teacher, if given, on the evaluation data ``source``. Return an evaluator.

    ``size`` is that of the images. The teacher has the precision of ``accelerator``. Its convolutions include batch
    norms, as in training, but the teacher is not compiled.
    """
    normalization = student_normalization(config, info)
    data = evaluation.load_evaluation_data(source, size, info.num_classes, info.classes)
    logits = None
    if teacher is not None:
        evaluation.warn_if_trained_on("the teacher", teacher.data_sha256, data)
        live = measured_teacher(teacher, normalization, data.size, accelerator)
        logits = evaluation.logits_of(live, data, *normalization, accelerator.context)
    evaluator = evaluation.Evaluator(data, normalization, logits, accelerator.context, Distillation.prefix)
    if (top1 := evaluator.teacher_top1) is not None:
        measured = f"top-1 {top1:.2f} % on {counted(len(data.labels), 'image')}"
        logger.info(f"teacher {config.teacher.arch}: {measured}, computed in {accelerator.precision} as in training")
    return evaluator
