"""Wiring of ``distill teacher``: a network trained on labelled images by the same loop that trains students."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.config import SupervisedConfig
from distill.data.labelled import LabelledImages, load_labelled
from distill.data.order import Order
from distill.data.view import Resident, View, fits_gpu
from distill.errors import DistillError, Say, ignore
from distill.estimate import WORTH_STEPS, Cost, estimate
from distill.fit import outline_of
from distill.judge import Judge, Verdict, tell_unmeasured
from distill.loop import Loop
from distill.losses import cross_entropy
from distill.models import require_size
from distill.optim import make_optimizer, make_scheduler
from distill.ranks import ALONE, Ranks
from distill.runs import (
    TEACHER_NAME,
    average_of,
    begin,
    conduct,
    config_digest,
    finish,
    identity_of,
    make_engine,
    new_network,
    run_directory,
)
from distill.targets import Labels
from distill.weights import Triple
from manifests.counts import counted


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
        images = load_labelled(data, config.data.size, "train")
        images.require_classes(config.network.num_classes, data)
        if images.images.shape[1] != images.images.shape[2]:
            height, width = images.images.shape[1:3]
            raise DistillError(f"{data}: images are {width}×{height}, expected square ones; set data.size")
        size = config.augment.output_size(images.size)
        require_size(config.network.arch, config.network.num_classes, size)
        digest = images.digest()
        identity = identity_of(config, data=digest)
        outline = outline_of(config.network.arch, config.network.num_classes)
        ranks.require_same(identity)
        state, done = ranks.from_first(lambda: begin(out, TEACHER_NAME, identity, outline, say))
        if done is not None:
            tell_unmeasured(done, "", out / TEACHER_NAME, config.eval.data, size, say)
            return done
        steps = config.train.steps(len(images.labels), config.data.batch_size)
        if state is None and steps >= WORTH_STEPS and ranks.world == 1:
            say(f"estimated: {estimate_teaching(config, len(images.labels), images.size, device)}")
        loop = _make_loop(config, images, device, say, ranks)
        classes = counted(config.network.num_classes, "class")
        say(f"{counted(len(images.labels), 'training image')} of {images.size} px, {classes}")
        judge = _judge(config, loop, device)
        progress = conduct(loop, config, out, identity, state, judge.measure if judge else None, say)
        network = {"arch": config.network.arch, "num_classes": config.network.num_classes}
        verdict = judge.judge(loop.result) if judge else Verdict(summary={"top1": None}, classes={})
        origin = {"data_sha256": digest, "config_sha256": config_digest(config, loop.view), "seed": config.train.seed}
        return ranks.from_first(lambda: finish(loop, progress, out, TEACHER_NAME, network, verdict, origin))


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
    network = new_network(config.network.arch, config.network.num_classes, config.train.seed)
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


def _judge(config: SupervisedConfig, loop: Loop, device: torch.device) -> Judge | None:
    if config.eval.data is None:
        return None
    data = load_labelled(config.eval.data, loop.view.size)
    data.require_classes(config.network.num_classes, config.eval.data)
    return Judge(
        data=data,
        mean=loop.mean,
        std=loop.std,
        teacher_logits=None,
        device=device,
        ranks=loop.ranks,
        prefix="",
    )
