"""Measure what a feature loss costs in a training step, as a ratio within one run.

Two loops train the same student with the same teacher on noise: one with ``kl``, one with ``kl`` and a feature loss
between the last stages. Their steps alternate, so other work on the machine slows both; the ratio compares medians.

    python scripts/bench_features.py
"""

import statistics
import time

import click
import torch
from bench_loop import patches
from measure.plain_loop import MEAN, STD

from distill.augment import AugmentConfig
from distill.config.schema import Config, make_config
from distill.data.batches import Resident, View
from distill.data.sampler import Order
from distill.models import build_model
from distill.runtime.compile import make_accelerator
from distill.runtime.device import pick_device
from distill.runtime.distributed import RunContext
from distill.targets.features import match_features
from distill.targets.losses import feature_terms, make_loss
from distill.targets.targets import FeatureTargets, Targets, TeacherTargets
from distill.training.trainer import Trainer

LIMIT = 0.10
"""Largest accepted cost of a feature loss, as a share of a step without it."""


def make_trainer(
    names: tuple[str, str], losses: list[dict[str, object]], batch: int, device: torch.device
) -> Trainer:
    """Return a loop that trains the student with the teacher; ``names`` are teacher and student."""
    groups = {"teacher": {"arch": names[0], "num_classes": 10}, "student": {"arch": names[1]}, "loss": losses}
    groups |= {"optim": {"name": "adam", "lr": 0.001}, "data": {"batch_size": batch}, "train": {"samples": 10**6}}
    config = make_config(groups, "bench", {}, Config)
    context = RunContext(device=device)
    accelerator = make_accelerator(context, "auto", "off", 10**6)
    source = Resident(samples=patches().to(device), order=Order(len(patches()), batch, 0), context=context)
    view = View(source=source, augment=AugmentConfig(), seed=0, period=10**6)
    module, student = build_model(names[0], 10).eval().requires_grad_(False).to(device), build_model(names[1], 10)
    targets: Targets
    prepared: torch.nn.Module = student
    if features := feature_terms(config.loss):
        match = match_features(features, student, module, (view.size, view.size), 0)
        prepared = match.student
        network = accelerator.frozen(module, view.example(), match.names, match.adapters)
        targets = FeatureTargets(network=network, convert=None)
    else:
        targets = TeacherTargets(network=accelerator.frozen(module, view.example()))
    return Trainer(config, prepared, view, targets, make_loss(config.loss), (MEAN, STD), accelerator)


@click.command()
@click.option("--teacher", default="resnet56", show_default=True)
@click.option("--student", default="resnet20", show_default=True)
@click.option("--batch", default=512, show_default=True)
@click.option("--steps", default=12, show_default=True, help="Measured steps of each loop.")
@click.option("--kind", type=click.Choice(["mse", "cosine", "attention"]), default="mse", show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(teacher: str, student: str, batch: int, steps: int, kind: str, device: str) -> None:
    """Print the median seconds of a step with and without a feature loss, and the cost of the feature loss."""
    kl: dict[str, object] = {"name": "kl"}
    features: dict[str, object] = {"name": "features", "student": "layer3", "teacher": "layer3", "kind": kind}
    picked = pick_device(device)
    trainers = [make_trainer((teacher, student), losses, batch, picked) for losses in ([kl], [kl, features])]
    seconds: list[list[float]] = [[], []]
    for step in range(steps + 1):
        for trainer, times in zip(trainers, seconds, strict=True):
            started = time.perf_counter()
            float(trainer.train_step(step))  # waits for the device
            times.append(time.perf_counter() - started)
    plain, more = (statistics.median(times[1:]) for times in seconds)  # the first step is slow
    cost = more / plain - 1
    print(f"{teacher} -> {student}, batch {batch}, {picked}, torch {torch.__version__}, {steps} steps each")
    print(f"kl {plain:.3f} s a step; kl and features ({kind}, layer3) {more:.3f} s; cost {100 * cost:+.1f} %")
    if cost > LIMIT:
        raise SystemExit(f"the feature loss costs more than {100 * LIMIT:.0f} % of a step")


if __name__ == "__main__":
    main()
