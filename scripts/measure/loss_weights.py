"""Measure the gradient norm of every loss relative to ``kl``; gives ``loss.weight`` in the table ``ablations``.

A student is trained with ``kl`` as in ``distill reproduce ablations --variant fast``. Every 10 steps each loss is
differentiated with respect to the same student logits. The output is the gradient norm of ``kl`` at T = 8 divided by
that of each loss (geometric mean, minimum and maximum of the run). This is the weight that makes the norms equal.

    patchgen build --image photo.jpg --n 50000 --out shards/
    python scripts/measure/loss_weights.py --teacher resnet56.safetensors --shards shards/
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import click
import torch
from torch import Tensor

from distill.commands import train
from distill.config import presets
from distill.config.schema import Config, parse_config
from distill.runtime.distributed import RunContext
from distill.tables.schema import parse_table
from distill.targets.losses import TEMPERED, UNTEMPERED, Loss, TemperedLossConfig, UntemperedLossConfig, make_loss
from distill.training import run

ROW = "cifar10-resnet56-resnet20"
EVERY = 10
REFERENCE = "kl at T = 8"
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)


def losses() -> dict[str, Loss]:
    """Return all losses at T = 8 without a weight, and ``kl`` at other temperatures."""
    found = {f"{name} at T = 8": make_loss(TemperedLossConfig(name=name, temperature=8)) for name in TEMPERED}  # type: ignore[arg-type]
    found |= {name: make_loss(UntemperedLossConfig(name=name)) for name in UNTEMPERED}  # type: ignore[arg-type]
    return found | {f"kl at T = {t:g}": make_loss(TemperedLossConfig(name="kl", temperature=t)) for t in TEMPERATURES}


def gradient_norm(loss: Loss, student: Tensor, teacher: Tensor) -> float:
    """Return the gradient norm of ``loss`` with respect to the student's logits; both are (B, classes)."""
    logits = student.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, teacher.detach()), logits)
    return float(gradient.norm())


@click.command()
@click.option("--teacher", type=click.Path(path_type=Path), required=True, help="A ResNet-56 of ten classes.")
@click.option("--shards", type=click.Path(path_type=Path), required=True, help="A patch set of 32 px.")
@click.option("--samples", default=64_000, show_default=True, help="Length of the run.")
def main(teacher: Path, shards: Path, samples: int) -> None:
    """Print the weight that gives each loss the gradient of kl at T = 8."""
    settings = parse_table(presets.text(presets.TABLES, "ablations"), "ablations").variant("fast")
    settings |= {"train.samples": samples, "teacher.weights": teacher, "train.compile": "off"}
    config = parse_config(presets.text(presets.CONFIGS, ROW), ROW, settings, Config)
    ratios: dict[str, list[float]] = {name: [] for name in losses()}
    spread: list[tuple[float, float]] = []
    steps = 0

    def measured(student: Tensor, target: Tensor) -> Tensor:
        nonlocal steps
        if steps % EVERY == 0:
            norms = {name: gradient_norm(loss, student, target) for name, loss in losses().items()}
            for name, norm in norms.items():
                ratios[name].append(norms[REFERENCE] / norm)
            spread.append((float(student.detach().std()), float(target.std())))
        steps += 1
        return make_loss(config.loss)(student, target)

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(train, "make_loss", lambda *_: measured),
        patch.object(
            run, "MIN_ESTIMATED_STEPS", samples
        ),  # without the warm-up of an estimate, whose teacher is random
    ):
        context = RunContext(device=torch.device("cpu"))
        run.run(lambda: train.Distillation(config, shards, context), Path(folder) / "run", context, resume=False)
    for name, values in ratios.items():
        found = torch.tensor(values)
        click.echo(f"{name}: {found.log().mean().exp():.3g} ({found.min():.3g} to {found.max():.3g})")
    for when, (student, target) in (("first", spread[0]), ("last", spread[-1])):
        click.echo(f"deviation of logits at the {when} step: student {student:.2f}, teacher {target:.2f}")


if __name__ == "__main__":
    main()
