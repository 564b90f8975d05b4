"""Wiring of ``distill train``: check everything that can be wrong, train a student, judge it."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.config.schema import Config
from distill.data.batches import Resident, View
from distill.data.cache import open_source
from distill.data.classes import match_classes
from distill.data.labelled import load_labelled, require_data
from distill.data.overlap import packed_digests, require_unseen
from distill.data.sampler import Order
from distill.errors import Say, ignore
from distill.evaluation.evaluator import Judge, Verdict, require_top1, tell_unmeasured
from distill.evaluation.metrics import logits_of
from distill.models import require_size
from distill.models.norms import warn_of_stale
from distill.optim import make_optimizer, make_scheduler
from distill.runtime.compile import Engine
from distill.runtime.distributed import ALONE, Ranks
from distill.runtime.precision import DTYPES
from distill.runtime.threads import settle_threads
from distill.targets.lesson import Lesson, LiveLesson, open_lesson, teacher_digest
from distill.targets.losses import make_loss
from distill.targets.stored_logits import read_labels
from distill.targets.teacher import Teacher, load_teacher
from distill.training.cost_estimate import WORTH_STEPS, Cost, estimate
from distill.training.patch_sample import keep_sample
from distill.training.run_dir import (
    STUDENT_NAME,
    average_of,
    begin,
    conduct,
    config_digests,
    finish,
    identity_of,
    make_engine,
    new_network,
    run_directory,
)
from distill.training.seeds import KnownDigests
from distill.training.trainer import Loop
from manifests import PatchSet
from manifests.patchset import open_folder
from manifests.support.counts import counted


def train(
    config: Config,
    shards: Path,
    out: Path,
    *,
    resume: bool,
    device: torch.device,
    say: Say,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Distil a student as ``config`` says from the set in ``shards`` into the run directory ``out``.

    Returns the summary; all ``ranks`` call it. ``say`` hears a line whenever something worth telling is known.

    Raises:
        DistillError, PatchSetError: anything is wrong with the config, teacher, data or run directory.
        InterruptedRun: a signal came; the same call with ``resume`` goes on.
    """
    with run_directory(out, resume, ranks):
        return _train(config, shards, out, device, say, ranks)


def check_inputs(config: Config, out: Path | None, *, resume: bool, ranks: Ranks) -> None:
    """Look at what a run needs beside its set, as long as that is not yet there; ``out`` if it is known.

    Raises:
        DistillError: the teacher, its logits, the evaluation data or the run directory are missing or wrong.
    """
    if config.teacher.logits is not None:
        read_labels(config.teacher.logits)
    if config.teacher.logits is None or config.teacher.weights is not None:
        load_teacher(config.teacher, torch.device("cpu"))
    if config.eval.data is not None:
        require_data(config.eval.data)
    if out is not None:
        with run_directory(out, resume, ranks):
            pass


def _train(config: Config, shards: Path, out: Path, device: torch.device, say: Say, ranks: Ranks) -> dict[str, Any]:
    ranks.require_rows(config.data.batch_size)
    patchset = open_folder(shards)
    size = config.augment.output_size(patchset.manifest.size)
    for arch in (config.teacher.arch, config.student.arch):
        require_size(arch, config.teacher.num_classes, size)
    steps = config.train.steps(patchset.manifest.n, config.data.batch_size)
    student = _new_student(config, config.train.seed)
    warn_of_stale(config.student.bn_momentum, steps, say)
    lesson = open_lesson(config, patchset.manifest.set_id, device)
    identity = identity_of(
        config, set_id=patchset.manifest.set_id, teacher_sha256=lesson.sha256, logits=lesson.identity
    )
    ranks.require_same(identity)
    state, done = ranks.from_first(lambda: begin(out, STUDENT_NAME, identity, student, say))
    if done is not None:
        tell_unmeasured(done, "student_", out / STUDENT_NAME, config.eval.data, size, say)
        return done
    if device.type == "cpu" and ranks.world == 1:
        settle_threads(state, say)
    engine = make_engine(config.train, device, steps, say, ranks)
    judge = open_judge(config, lesson, engine, size)
    if judge is not None:
        require_unseen(packed_digests(patchset), judge.data, f"the set {shards}", say)
    seed = config.data.view_seed
    with open_view(config, patchset, lesson.view_seed(config) if seed is None else seed, device, say, ranks) as view:
        if state is None and steps >= WORTH_STEPS and ranks.world == 1:
            say(f"estimated: {estimate_run(config, patchset.manifest.n, patchset.manifest.size, device)}")
        loop = _make_loop(config, student, lesson, view, engine)
        measure = judge.measure if judge else None
        progress = conduct(loop, config, out, identity, state, measure, say, lambda: keep_sample(patchset, out, say))
    loop.targets.require_unchanged()
    network = config.student.described() | {
        "num_classes": config.teacher.num_classes,
        "classes": list(lesson.classes),
    }
    origin = {
        "set_id": patchset.manifest.set_id,
        "teacher_arch": config.teacher.arch,
        "teacher_sha256": lesson.sha256,
        "teacher_precision": lesson.precision or engine.precision,
        "seed": config.train.seed,
    } | config_digests(config, loop.view, logits=lesson.identity)
    nothing = dict.fromkeys(("student_top1", "teacher_top1", "agreement"))
    verdict = judge.judge(loop.result) if judge else Verdict(summary={}, classes={})
    verdict = dataclasses.replace(verdict, summary=nothing | verdict.summary)
    return ranks.from_first(lambda: finish(loop, progress, out, STUDENT_NAME, network, verdict, origin))


def known_digests(config: Config, shards: Path) -> KnownDigests:
    """Digests of what a run of ``config`` on the set in ``shards`` is made from and judged on."""
    manifest = open_folder(shards).manifest

    def evaluation() -> str | None:
        size = config.augment.output_size(manifest.size)
        return None if config.eval.data is None else load_labelled(config.eval.data, size, say=ignore).sha256

    return {
        "set_id": lambda: manifest.set_id,
        "teacher_sha256": lambda: teacher_digest(config.teacher),
        "eval_sha256": evaluation,
    }


@contextmanager
def open_view(
    config: Config, patchset: PatchSet, seed: int, device: torch.device, say: Say, ranks: Ranks = ALONE
) -> Iterator[View]:
    """Verify and decode the set, and lay the config's order and augmentation over it."""
    with open_source(patchset, config.data, seed, device, say, ranks) as source:
        steps = config.train.steps(source.order.n, source.order.batch_size)
        period = -(-steps // config.data.passes)
        yield View(source=source, augment=config.augment, seed=seed, period=period)


def open_judge(config: Config, lesson: Lesson, engine: Engine, size: int) -> Judge | None:
    """Read the evaluation data, and measure the teacher on it as it teaches; None without data.

    Measured is the copy whose logits teach, folded and in their precision, but not compiled.

    Raises:
        DistillError: the data cannot be read or has too many classes, or the teacher is worse than it should be.
    """
    device, say, ranks = engine.device, engine.say, engine.ranks
    least = config.teacher.min_top1
    if config.eval.data is None:
        if least is not None:
            say(f"no evaluation data (--eval), so teacher.min_top1 {least} is not checked")
        return None
    found = load_labelled(config.eval.data, size, say=say)
    data = match_classes(found, config.teacher.num_classes, lesson.classes, config.eval.data, say)
    say(f"evaluation data: {data}")
    teacher = lesson.teacher
    if teacher is not None and teacher.data_sha256 == found.sha256:
        say(f"{found.where}: these are the images that the teacher was trained on: its figures say nothing of others")
    precision = lesson.precision or engine.precision
    logits = None
    if teacher is not None:
        copied = dataclasses.replace(engine, precision=precision).folded(teacher.model)
        logits = logits_of(copied, data, lesson.mean, lesson.std, device, ranks, DTYPES[precision])
    judge = Judge(data=data, mean=lesson.mean, std=lesson.std, teacher_logits=logits, device=device, ranks=ranks)
    if logits is None:
        say("no teacher (--teacher) beside its stored logits, so it is not evaluated")
    else:
        say(
            f"teacher {config.teacher.arch}: top-1 {judge.teacher_top1:.2f} % on "
            f"{counted(len(data.labels), 'image')}, computed in {precision} as it teaches"
        )
    require_top1(judge, config.teacher)
    return judge


def estimate_run(config: Config, n: int, size: int, device: torch.device) -> Cost:
    """What distilling from ``n`` patches of ``size`` px would cost here, from a warm-up that needs no teacher's file.

    Raises:
        DistillError: the config asks for a network that there is not, or one that does not take the size.
    """

    def make(short: Config, images: Tensor) -> Loop:
        num_classes, steps = short.teacher.num_classes, short.train.steps(n, short.data.batch_size)
        network = new_network(short.teacher.arch, num_classes, 0, "init from labels").eval().requires_grad_(False)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        teacher = Teacher(model=network, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), sha256="")
        source = Resident(samples=images, order=Order(len(images), short.data.batch_size, 0), device=device)
        view = View(source=source, augment=short.augment, seed=0, period=steps)
        lesson = LiveLesson(teacher=teacher, num_classes=num_classes)
        student = _new_student(short, 1)
        return _make_loop(short, student, lesson, view, make_engine(short.train, device, steps, ignore))

    return estimate(config, make, n=n, size=size, device=device)


def _new_student(config: Config, seed: int) -> nn.Module:
    student = config.student
    return new_network(
        *(student.arch, config.teacher.num_classes, seed, "init"),
        bn_momentum=student.bn_momentum,
        bn_eps=student.bn_eps,
    )


def _make_loop(config: Config, student: nn.Module, lesson: Lesson, view: View, engine: Engine) -> Loop:
    targets = lesson.targets(view, engine)
    student.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config.optim, student.parameters())
    return Loop(
        student=student,
        forward=engine.student(student, view.example()),
        average=average_of(student, config.train.ema),
        targets=targets,
        loss=make_loss(config.loss),
        view=view,
        mean=lesson.mean,
        std=lesson.std,
        optimizer=optimizer,
        scheduler=make_scheduler(config.optim, optimizer, engine.steps),
        steps=engine.steps,
        seed=config.train.seed,
        precision=engine.precision,
        scaler=engine.scaler(),
        device=engine.device,
        arithmetic=engine.describe(),
    )
