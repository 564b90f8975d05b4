"""Who teaches a student: a teacher that is here, or logits that it gave before."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from distill.config.schema import Config
from distill.data.batches import View, fits_gpu
from distill.data.cache import free_memory
from distill.errors import DistillError
from distill.runtime.compile import Engine
from distill.runtime.precision import Precision
from distill.targets.stored_logits import LabelsManifest, open_logits, read_labels, require_same, require_same_view
from distill.targets.targets import LiveTeacher, RememberedTeacher, StoredTeacher, Targets
from distill.targets.teacher import Teacher, TeacherConfig, load_teacher
from distill.weights.files import Triple
from manifests.format.digest import file_digest
from manifests.support.counts import counted


class Lesson(Protocol):
    """A teacher's identity, normalisation and targets; ``teacher`` is None where only its logits are here."""

    @property
    def identity(self) -> str:
        """What a run must share with the one it goes on from, beside the teacher's digest."""

    @property
    def teacher(self) -> Teacher | None:
        """The network itself."""

    @property
    def precision(self) -> Precision | None:
        """In which the teacher gave its logits; None where it gives them in this run, in the run's own."""

    @property
    def sha256(self) -> str:
        """Of the teacher's weight file."""

    @property
    def mean(self) -> Triple:
        """Of RGB in [0, 1]."""

    @property
    def std(self) -> Triple:
        """Of RGB in [0, 1]."""

    @property
    def classes(self) -> Sequence[str]:
        """The teacher's class names, empty where they are unknown."""

    def view_seed(self, config: Config) -> int:
        """The seed of order and augmentation where the config names none."""

    def targets(self, view: View, engine: Engine) -> Targets:
        """What the student is held against at the steps of ``engine`` on ``view``."""


def live_targets(teacher: Teacher, view: View, engine: Engine) -> LiveTeacher:
    """A teacher that looks at every batch of ``view``."""
    return LiveTeacher(network=engine.frozen(teacher.model, view.example()))


def _remembered(live: LiveTeacher, view: View, engine: Engine, num_classes: int) -> Targets:
    """``live``, asked once about each view where views come again and there is room for what it said."""
    size = view.period * view.rows * num_classes * live.network.dtype.itemsize
    if view.period >= engine.steps:
        return live
    if fits_gpu(size, engine.device) or (engine.device.type == "cpu" and view.ranks.here * size < free_memory() // 2):
        return RememberedTeacher(live=live)
    engine.say(f"too little memory for {size / 1e9:.1f} GB of logits: the teacher looks at every batch of every pass")
    return live


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveLesson:
    """A teacher that looks at every batch."""

    teacher: Teacher
    num_classes: int

    @property
    def identity(self) -> str:
        """As ``Lesson``."""
        return "live teacher"

    @property
    def precision(self) -> None:
        """As ``Lesson``."""
        return None

    @property
    def sha256(self) -> str:
        """As ``Lesson``."""
        return self.teacher.sha256

    @property
    def mean(self) -> Triple:
        """As ``Lesson``."""
        return self.teacher.mean

    @property
    def std(self) -> Triple:
        """As ``Lesson``."""
        return self.teacher.std

    @property
    def classes(self) -> Sequence[str]:
        """As ``Lesson``."""
        return self.teacher.classes

    def view_seed(self, config: Config) -> int:
        """As ``Lesson``."""
        return config.train.seed

    def targets(self, view: View, engine: Engine) -> Targets:
        """As ``Lesson``."""
        live = live_targets(self.teacher, view, engine)
        return _remembered(live, view, engine, self.num_classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredLesson:
    """Logits of a teacher on one view; ``teacher`` itself only judges."""

    folder: Path
    labels: LabelsManifest
    teacher: Teacher | None

    @property
    def identity(self) -> str:
        """As ``Lesson``."""
        return f"stored logits {hashlib.sha256(self.labels.to_json()).hexdigest()}"

    @property
    def precision(self) -> Precision:
        """As ``Lesson``."""
        return self.labels.precision

    @property
    def sha256(self) -> str:
        """As ``Lesson``."""
        return self.labels.teacher.sha256

    @property
    def mean(self) -> Triple:
        """As ``Lesson``."""
        red, green, blue = self.labels.teacher.mean
        return red, green, blue

    @property
    def std(self) -> Triple:
        """As ``Lesson``."""
        red, green, blue = self.labels.teacher.std
        return red, green, blue

    @property
    def classes(self) -> Sequence[str]:
        """As ``Lesson``."""
        return self.labels.teacher.classes

    def view_seed(self, config: Config) -> int:
        """As ``Lesson``: the stored view's, so that students of several seeds share it."""
        seed = self.labels.view.get("seed")
        return seed if isinstance(seed, int) else config.train.seed

    def targets(self, view: View, engine: Engine) -> Targets:
        """As ``Lesson``.

        Raises:
            DistillError: the logits are of another view, are too few, or a file of them is damaged.
        """
        require_same_view(self.folder, self.labels.view, view.describe())
        if self.labels.steps < view.period:
            raise DistillError(
                f"{self.folder}: has logits of {counted(self.labels.steps, 'step')} of {view.batch_size}, "
                f"this run has {view.period}; label with this run's length, or shorten the run with train.samples"
            )
        logits = open_logits(self.folder, self.labels, view.period)
        return StoredTeacher(logits=logits, device=engine.device, ranks=view.ranks)


def teacher_digest(config: TeacherConfig) -> str | None:
    """SHA-256, as hex, of the file of the teacher that ``config`` names, or that its stored logits name.

    Raises:
        DistillError: the stored logits cannot be read.
    """
    if config.logits is not None:
        return read_labels(config.logits).teacher.sha256
    return None if config.weights is None else file_digest(config.weights)


def open_lesson(config: Config, set_id: str, device: torch.device) -> Lesson:
    """The stored logits that ``config`` names, else its teacher.

    Raises:
        DistillError: neither is named, one is wrong, or they are not of each other, of the set or of the config.
    """
    folder = config.teacher.logits
    if folder is None:
        return LiveLesson(teacher=load_teacher(config.teacher, device), num_classes=config.teacher.num_classes)
    labels = read_labels(folder)
    held = labels.teacher
    require_same(folder, "the set", labels.set_id, set_id)
    require_same(folder, "a teacher with arch", held.arch, config.teacher.arch)
    require_same(folder, "a teacher with num_classes", held.num_classes, config.teacher.num_classes)
    for name, asked, stored in (("mean", config.teacher.mean, held.mean), ("std", config.teacher.std, held.std)):
        if asked is not None:
            require_same(folder, f"a teacher with {name}", stored, list(asked))
    teacher = None if config.teacher.weights is None else load_teacher(config.teacher, device)
    if teacher is not None:
        require_same(folder, "a teacher with sha256", held.sha256, teacher.sha256)
    return StoredLesson(folder=folder, labels=labels, teacher=teacher)
