"""Measure the speed of distillation steps: a plain PyTorch loop and three variants of ours, in one run.

The plain loop is ``measure/plain_loop.py``. Our variants are a live teacher, a live teacher whose logits are used
twice (``data.passes: 2``), and stored logits. Each variant runs in its own process. The variants alternate for
several rounds, and the ratios compare medians. Patches are noise and the teacher has random weights. Measure on an
idle machine.

The last lines print an upper bound: the speed of a step that only computes its convolutions and matrix products, at
the rate at which this machine multiplies large matrices.

    scripts/bench_distill --out benchmarks/output/distill.txt

``--busy`` measures how much one busy process slows training on a CPU, for several OpenMP spin counts
(``distill/__init__.py`` sets the default). With the demo's networks this takes about 8 minutes:

    scripts/bench_distill --busy --teacher resnet8 --student resnet8 --batch 64 --compile off
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from bench_loop import Way, noise_loop, patches, precision_of
from measure.busy_cores import DEFAULT_ENVIRONMENT, compare_spin_counts, training_rates
from measure.machine_limit import MATRIX, flops_per_image, idle_share, matrix_flops_per_second, time_of
from measure.plain_loop import MEAN, STD, WARM_UP, folder_of_jpegs, now, plain
from torch import Tensor

from distill.augment import normalize
from distill.data.batches import View
from distill.runtime.compile import Compile
from distill.runtime.device import DTYPES, pick_device

TITLES = {
    "plain": "plain loop, float32, eager",
    "live": "ours, live teacher",
    "twice": "ours, views seen twice",
    "stored": "ours, stored logits",
}


def ours(
    arch: tuple[str, str], batch: int, steps: int, device: torch.device, compiling: Compile, way: Way
) -> dict[str, float]:
    """Return images per second of the loop of ``distill train``, the shares of loader and teacher, and peak rates."""
    with noise_loop(arch, batch, steps, device, compiling, way) as loop:
        for step in range(WARM_UP):
            loop.train_step(step)
        started = now(device)
        for step in range(WARM_UP, steps):
            loop.train_step(step)
        seconds = (now(device) - started) / (steps - WARM_UP)
        loader = time_of(lambda: _load(loop.view), device)
        batch_1 = loop.view.batch(1)
        example = normalize(batch_1.images, MEAN, STD)
        teacher = time_of(lambda: loop.targets(batch_1, example), device)
    return {
        "images_per_second": batch / seconds,
        "loader": loader / seconds,
        "teacher": teacher / seconds,
        "idle": idle_share(lambda step: loop.train_step(WARM_UP + step % (steps - WARM_UP)), device),
        "flops_per_second": matrix_flops_per_second(device, DTYPES[loop.accelerator.precision]),
        "flops_per_image": flops_per_image(arch, {"live": 1.0, "twice": 0.5, "stored": 0.0}[way]),
    }


def _load(view: View) -> Tensor:
    _load.step += 1  # type: ignore[attr-defined]
    return normalize(view.batch(_load.step).images, MEAN, STD)  # type: ignore[attr-defined]


_load.step = 0  # type: ignore[attr-defined]


def _measure(variant: str, arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--variant", variant, *arguments]
    told = os.environ | environment
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=told).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


@click.command()
@click.option("--teacher", default="resnet56", show_default=True)
@click.option("--student", default="resnet20", show_default=True)
@click.option("--batch", default=512, show_default=True, help="Samples per step; the paper uses 512.")
@click.option("--steps", default=15, show_default=True, help="Steps per measurement; three of them are warm-up.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--compile", "compiling", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the report to this file.")
@click.option("--busy", is_flag=True, help="Measure the slowdown by a busy process, on the CPU.")
@click.option("--seconds", default=3.0, show_default=True, help="Duration of each measurement with --busy.")
@click.option("--variant", type=click.Choice([*TITLES, "busy"]), hidden=True)
def main(
    teacher: str,
    student: str,
    batch: int,
    steps: int,
    rounds: int,
    device: str,
    compiling: Compile,
    out: Path | None,
    busy: bool,
    seconds: float,
    variant: Any,
) -> None:
    """Measure steps per second of each variant, each in its own process."""
    device = "cpu" if busy else device
    if variant is not None:
        _print_variant(variant, (teacher, student), batch, steps, pick_device(device), compiling, seconds)
        return
    arguments = ["--teacher", teacher, "--student", student, "--batch", str(batch), "--steps", str(steps)]
    arguments += ["--device", device, "--compile", compiling, "--seconds", str(seconds)]
    if busy:
        lines = [f"{teacher} -> {student}, batch {batch}, {rounds} rounds, torch {torch.__version__}"]
        lines += compare_spin_counts(lambda environment: _measure("busy", arguments, environment), rounds)
    else:
        results: dict[str, list[dict[str, float]]] = {name: [] for name in TITLES}
        for _ in range(rounds):
            for name, measured in results.items():
                # The plain loop runs with OpenMP's default; ours with what importing distill puts into os.environ.
                measured.append(_measure(name, arguments, DEFAULT_ENVIRONMENT if name == "plain" else {}))
        lines = _report(results, teacher, student, batch, steps, device)
    print("\n".join(lines))
    if out is not None:
        command = " ".join(["scripts/bench_distill", *sys.argv[1:]])
        out.write_text("\n".join([f"$ {command}", *lines]) + "\n")


def _print_variant(
    variant: Any,
    arch: tuple[str, str],
    batch: int,
    steps: int,
    device: torch.device,
    compiling: Compile,
    seconds: float,
) -> None:
    torch.manual_seed(0)
    if variant == "plain":
        with tempfile.TemporaryDirectory() as folder:
            found = plain(folder_of_jpegs(Path(folder), patches()), arch, batch, steps, device)
    elif variant == "busy":
        found = training_rates(arch, batch, device, compiling, seconds)
    else:
        found = ours(arch, batch, steps, device, compiling, variant)
    print(json.dumps(found))


def _report(
    results: dict[str, list[dict[str, float]]], teacher: str, student: str, batch: int, steps: int, device: str
) -> list[str]:
    where = pick_device(device)
    machine = torch.cuda.get_device_name(where) if where.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    rates = {name: [each["images_per_second"] for each in measured] for name, measured in results.items()}
    middle = {name: statistics.median(values) for name, values in rates.items()}
    mine = [name for name in TITLES if name != "plain"]

    def of(name: str, part: str) -> float:
        return statistics.median(each[part] for each in results[name])

    lines = [
        f"{teacher} -> {student}, batch {batch}, 32 px, {steps} steps x {len(rates['plain'])} rounds on {machine}, "
        f"{platform.machine()}, {precision_of(where)}, torch {torch.__version__}"
    ]
    for name, title in TITLES.items():
        rounds = ", ".join(f"{value:.0f}" for value in rates[name])
        lines.append(f"{title:28s} {middle[name]:9.0f} images/s   (rounds {rounds})")
    loaders = ", ".join(f"{name} {100 * of(name, 'loader'):.1f} %" for name in mine)
    lines += [
        f"share of a step: teacher {100 * of('live', 'teacher'):.0f} % when live; loader and augmentation: {loaders}",
        "a run of 50 million samples: " + ", ".join(f"{name} {5e7 / middle[name] / 3600:.2f} h" for name in TITLES),
        "ratio to the plain loop: " + ", ".join(f"{name} {middle[name] / middle['plain']:.2f}" for name in mine),
    ]
    if where.type == "cuda":
        idle = ", ".join(f"{name} {100 * of(name, 'idle'):.0f} %" for name in mine)
        lines.append(f"share of the time in which the GPU runs no kernel: {idle}")
    peak = statistics.median(of(name, "flops_per_second") for name in mine)
    for name in mine:
        each, most = of(name, "flops_per_image"), peak / of(name, "flops_per_image")
        lines.append(
            f"{name}: {each / 1e9:.3f} Gflop an image; at the {peak / 1e9:.0f} Gflop/s of a {MATRIX}-row product "
            f"that would be {most:.0f} images/s, {most / middle['plain']:.2f} x the plain loop; "
            f"reached {100 * middle[name] / most:.0f} %"
        )
    return lines


if __name__ == "__main__":
    main()
