"""Wiring of ``distill train-teacher``: a network trained on labelled images by the same loop that trains students."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.config.schema import SupervisedConfig
from distill.data.batches import Resident, View, fits_gpu
from distill.data.classes import complete_names, match_classes
from distill.data.labelled import LabelledImages, load_labelled
from distill.data.overlap import require_unseen
from distill.data.sampler import Order
from distill.errors import DistillError, Say, ignore
from distill.evaluation.evaluator import Judge, Verdict, tell_unmeasured
from distill.models import require_size
from distill.models.norms import set_batch_norms, warn_of_stale
from distill.optim import make_optimizer, make_scheduler
from distill.runtime.distributed import ALONE, Ranks
from distill.runtime.threads import settle_threads
from distill.targets.losses import cross_entropy
from distill.targets.targets import Labels
from distill.training.cost_estimate import WORTH_STEPS, Cost, estimate
from distill.training.run_dir import (
    TEACHER_NAME,
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
from distill.weights.files import Triple
from distill.weights.load import outline_of


def teach(
    config: SupervisedConfig,
    data: Path,
    out: Path,
    *,
    resume: bool,
    device: torch.device,
    say: Say,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train a network as ``config`` says on the training images of ``data`` into the run directory ``out``.

    Returns the summary; all ``ranks`` call it. ``say`` hears a line whenever something worth telling is known.

    Raises:
        DistillError: anything is wrong with the config, data or run directory.
        InterruptedRun: a signal came; the same call with ``resume`` goes on.
    """
    with run_directory(out, resume, ranks):
        ranks.require_rows(config.data.batch_size)
        found = load_labelled(data, config.data.size, "train", say)
        images = match_classes(found, config.network.num_classes, (), data, say)
        classes = complete_names(images)
        if images.images.shape[1] != images.images.shape[2]:
            height, width = images.images.shape[1:3]
            raise DistillError(f"{data}: images are {width}×{height}, expected square ones; set data.size")
        size = config.augment.output_size(images.size)
        require_size(config.network.arch, config.network.num_classes, size)
        digest = images.sha256
        identity = identity_of(config, data=digest)
        outline = outline_of(config.network.arch, config.network.num_classes)
        set_batch_norms(outline, momentum=config.network.bn_momentum, eps=config.network.bn_eps)
        ranks.require_same(identity)
        state, done = ranks.from_first(lambda: begin(out, TEACHER_NAME, identity, outline, say))
        if done is not None:
            tell_unmeasured(done, "", out / TEACHER_NAME, config.eval.data, size, say)
            return done
        if device.type == "cpu" and ranks.world == 1:
            settle_threads(state, say)
        steps = config.train.steps(len(images.labels), config.data.batch_size)
        warn_of_stale(config.network.bn_momentum, steps, say)
        if state is None and steps >= WORTH_STEPS and ranks.world == 1:
            say(f"estimated: {estimate_teaching(config, len(images.labels), images.size, device)}")
        say(f"training data: {images}")
        loop = _make_loop(config, images, device, say, ranks)
        judge = _judge(config, loop, classes, device, say)
        if judge is not None:
            require_unseen(frozenset(images.digests), judge.data, images.where, say)
        progress = conduct(loop, config, out, identity, state, judge.measure if judge else None, say)
        network = config.network.described() | {
            "num_classes": config.network.num_classes,
            "classes": list(classes),
            "data_sha256": digest,
        }
        verdict = judge.judge(loop.result) if judge else Verdict(summary={"top1": None}, classes={})
        origin = {"seed": config.train.seed} | config_digests(config, loop.view)
        return ranks.from_first(lambda: finish(loop, progress, out, TEACHER_NAME, network, verdict, origin))


def known_digests(config: SupervisedConfig, data: Path) -> KnownDigests:
    """Digests of what a run of ``config`` on ``data`` is made from and judged on."""

    def evaluation() -> str | None:
        if config.eval.data is None:
            return None
        size = load_labelled(data, config.data.size, "train", ignore).size
        return load_labelled(config.eval.data, config.augment.output_size(size), say=ignore).sha256

    return {
        "data_sha256": lambda: load_labelled(data, config.data.size, "train", ignore).sha256,
        "eval_sha256": evaluation,
    }


def estimate_teaching(config: SupervisedConfig, n: int, size: int, device: torch.device) -> Cost:
    """What teaching a network ``n`` images of ``size`` px would cost here, from a short warm-up.

    Raises:
        DistillError: the config asks for a network that there is not, or one that does not take the size.
    """

    def make(short: SupervisedConfig, images: Tensor) -> Loop:
        labels = torch.arange(len(images)) % short.network.num_classes
        return _make_loop(short, LabelledImages(images=images, labels=labels), device, ignore, ALONE)

    return estimate(config, make, n=n, size=size, device=device)


def statistics(images: Tensor) -> tuple[Triple, Triple]:
    """Mean and standard deviation of each channel of uint8 (N, H, W, 3), as of RGB in [0, 1], to four digits."""
    count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for part in images.split(4096):
        wide = part.reshape(-1, 3).to(torch.int64)
        count += len(wide)
        total += wide.sum(dim=0)
        squares += wide.square().sum(dim=0)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return _triple(mean / 255), _triple((deviation / 255).clamp(min=1e-3))


def _triple(values: Tensor) -> Triple:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue


def _make_loop(
    config: SupervisedConfig, images: LabelledImages, device: torch.device, say: Say, ranks: Ranks
) -> Loop:
    wanted = config.network
    network = new_network(
        *(wanted.arch, wanted.num_classes, config.train.seed, "init from labels"),
        bn_momentum=wanted.bn_momentum,
        bn_eps=wanted.bn_eps,
    )
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seed = config.train.seed if config.data.view_seed is None else config.data.view_seed
    order = Order(len(images.labels), config.data.batch_size, seed)
    samples = images.images.to(device) if fits_gpu(images.images.nbytes, device) else images.images
    steps = config.train.steps(order.n, order.batch_size)
    source = Resident(samples=samples, order=order, device=device, ranks=ranks)
    view = View(source=source, augment=config.augment, seed=seed, period=steps)
    optimizer = make_optimizer(config.optim, network.parameters())
    mean, std = statistics(images.images)
    mean, std = config.network.mean or mean, config.network.std or std
    engine = make_engine(config.train, device, steps, say, ranks)
    return Loop(
        student=network,
        forward=engine.student(network, view.example()),
        average=average_of(network, config.train.ema),
        targets=Labels(
            labels=images.labels,
            order=order,
            num_classes=config.network.num_classes,
            smoothing=config.labels.smoothing,
            ranks=ranks,
        ),
        loss=cross_entropy,
        view=view,
        mean=mean,
        std=std,
        optimizer=optimizer,
        scheduler=make_scheduler(config.optim, optimizer, steps),
        steps=steps,
        seed=config.train.seed,
        precision=engine.precision,
        scaler=engine.scaler(),
        device=device,
        arithmetic=engine.describe(),
    )


def _judge(
    config: SupervisedConfig, loop: Loop, classes: tuple[str, ...], device: torch.device, say: Say
) -> Judge | None:
    if config.eval.data is None:
        return None
    found = load_labelled(config.eval.data, loop.view.size, say=say)
    data = match_classes(found, config.network.num_classes, classes, config.eval.data, say)
    say(f"evaluation data: {data}")
    return Judge(
        data=data,
        mean=loop.mean,
        std=loop.std,
        teacher_logits=None,
        device=device,
        ranks=loop.ranks,
        prefix="",
    )
