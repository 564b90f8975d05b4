"""How fast distillation steps are on this machine: a plain loop, and ours in three ways, in one run.

The plain loop is the usual script (``plain_loop.py``). Ours has a live teacher; a live teacher that is asked once
about each augmented batch, which the student sees twice (``data.passes: 2``); or stored logits. Each is measured in a
process of its own, in turn, several rounds; the ratios are of the medians. Nothing is learnt here: patches are noise,
the teacher has random weights. Measure on an idle machine.

The last lines say how much is left to gain: how fast steps would be that did nothing but their convolutions and
products, at the rate at which this machine multiplies large matrices.

    scripts/bench_distill --out benchmarks/distill.txt
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from machine_limit import MATRIX, flops_per_image, idle_share, matrix_flops_per_second, time_of
from plain_loop import MEAN, STD, WARM_UP, folder_of_jpegs, now, plain
from torch import Tensor

from distill.augment import AugmentConfig, normalise
from distill.data.order import Order
from distill.data.view import Resident, View
from distill.device import pick_device
from distill.engine import Compile, Engine
from distill.labels import LabelFile, Labeller, LabelsManifest, StoredLogits
from distill.loop import Loop
from distill.losses import TemperedLossConfig, make_loss
from distill.models import build_model
from distill.optim import AdamConfig, make_optimizer, make_scheduler
from distill.precision import DTYPES, Precision, choose_precision
from distill.targets import LiveTeacher, RememberedTeacher, StoredTeacher, Targets

PATCHES = 20_000
Way = Literal["live", "twice", "stored"]
TITLES = {
    "plain": "plain loop, float32, eager",
    "live": "ours, live teacher",
    "twice": "ours, views seen twice",
    "stored": "ours, stored logits",
}


def patches() -> Tensor:
    """Noise: uint8 (20,000, 32, 32, 3)."""
    return torch.randint(0, 256, (PATCHES, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ours(
    arch: tuple[str, str], batch: int, steps: int, device: torch.device, compiling: Compile, way: Way
) -> dict[str, float]:
    """Images a second of ``distill train``'s loop, the loader's and the teacher's share of a step, and rates."""
    engine = Engine(device=device, precision=_precision(device), compile=compiling, steps=10**6, say=print)
    engine.prepare_process()
    source = Resident(samples=patches().to(device), order=Order(PATCHES, batch, 0), device=device)
    half = WARM_UP + (steps - WARM_UP + 1) // 2  # of the measured steps, as many new as seen before
    view = View(source=source, augment=AugmentConfig(), seed=0, period=half if way == "twice" else steps)
    example = normalise(view.batch(0).images, MEAN, STD)
    with tempfile.TemporaryDirectory() as folder:
        targets = _targets(arch[0], way, engine, example, (Path(folder), batch, steps))
        loop = _loop(arch[1], view, targets, engine, steps)
        for step in range(WARM_UP):
            loop.train_step(step)
        started = now(device)
        for step in range(WARM_UP, steps):
            loop.train_step(step)
        seconds = (now(device) - started) / (steps - WARM_UP)
        loader = time_of(lambda: _load(view), device)
        batch_1 = view.batch(1)
        teacher = time_of(lambda: targets(batch_1, example), device)
    return {
        "images_per_second": batch / seconds,
        "loader": loader / seconds,
        "teacher": teacher / seconds,
        "idle": idle_share(lambda step: loop.train_step(WARM_UP + step % (steps - WARM_UP)), device),
        "flops_per_second": matrix_flops_per_second(device, DTYPES[engine.precision]),
        "flops_per_image": flops_per_image(arch, {"live": 1.0, "twice": 0.5, "stored": 0.0}[way]),
    }


def _precision(device: torch.device) -> Precision:
    return choose_precision("auto", device, lambda line: None)


def _targets(arch: str, way: Way, engine: Engine, example: Tensor, labels: tuple[Path, int, int]) -> Targets:
    if way == "stored":
        return StoredTeacher(logits=_noise_logits(*labels), device=engine.device)
    teacher = build_model(arch, 10).eval().requires_grad_(False)
    teacher.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    live = LiveTeacher(network=engine.frozen(teacher, example))
    return RememberedTeacher(live=live) if way == "twice" else live


def _load(view: View) -> Tensor:
    _load.step += 1  # type: ignore[attr-defined]
    return normalise(view.batch(_load.step).images, MEAN, STD)  # type: ignore[attr-defined]


_load.step = 0  # type: ignore[attr-defined]


def _noise_logits(folder: Path, batch: int, steps: int) -> StoredLogits:
    path = folder / "logits-000000.npy"
    np.save(path, np.random.default_rng(0).normal(0, 3, (steps * batch, 10)).astype(np.float16))
    digest = "0" * 64
    manifest = LabelsManifest(
        format="labels/1",
        set_id=digest,
        teacher=Labeller(arch="resnet56", sha256=digest, num_classes=10, mean=list(MEAN), std=list(STD)),
        view={},
        batch_size=batch,
        precision="bf16",
        files=[LabelFile(name=path.name, steps=steps, sha256=digest)],
        environment={},
    )
    return StoredLogits(folder=folder, manifest=manifest, arrays=(np.load(path, mmap_mode="r"),))


def _loop(arch: str, view: View, targets: Targets, engine: Engine, steps: int) -> Loop:
    student = build_model(arch, 10).train()
    student.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optim = AdamConfig(name="adam", lr=1e-3)
    optimizer = make_optimizer(optim, student.parameters())
    return Loop(
        student=student,
        forward=engine.student(student, normalise(view.batch(0).images, MEAN, STD)),
        average=None,
        targets=targets,
        loss=make_loss(TemperedLossConfig(name="kl")),
        view=view,
        mean=MEAN,
        std=STD,
        optimizer=optimizer,
        scheduler=make_scheduler(optim, optimizer, steps),
        steps=steps,
        seed=0,
        precision=engine.precision,
        scaler=engine.scaler(),
        device=engine.device,
        arithmetic=engine.describe(),
    )


def _measure(variant: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--variant", variant, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


@click.command()
@click.option("--teacher", default="resnet56", show_default=True)
@click.option("--student", default="resnet20", show_default=True)
@click.option("--batch", default=512, show_default=True, help="Samples a step; the paper's is 512.")
@click.option("--steps", default=15, show_default=True, help="Steps a measurement, three of them to warm up.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--compile", "compiling", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the report here.")
@click.option("--variant", type=click.Choice(list(TITLES)), hidden=True)
def main(
    teacher: str,
    student: str,
    batch: int,
    steps: int,
    rounds: int,
    device: str,
    compiling: Compile,
    out: Path | None,
    variant: Any,
) -> None:
    """Measure steps a second, each way in a process of its own, in turn."""
    if variant is not None:
        where = pick_device(device)
        torch.manual_seed(0)
        if variant == "plain":
            with tempfile.TemporaryDirectory() as folder:
                files = folder_of_jpegs(Path(folder), patches())
                print(json.dumps(plain(files, (teacher, student), batch, steps, where)))
        else:
            print(json.dumps(ours((teacher, student), batch, steps, where, compiling, variant)))
        return
    arguments = ["--teacher", teacher, "--student", student, "--batch", str(batch), "--steps", str(steps)]
    arguments += ["--device", device, "--compile", compiling]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in TITLES}
    for _ in range(rounds):
        for name, measured in results.items():
            measured.append(_measure(name, *arguments))
    lines = _report(results, teacher, student, batch, steps, device)
    print("\n".join(lines))
    if out is not None:
        command = " ".join(["scripts/bench_distill", *sys.argv[1:]])
        out.write_text("\n".join([f"$ {command}", *lines]) + "\n")


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
        f"{platform.machine()}, {_precision(where)}, torch {torch.__version__}"
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
