"""How fast distillation steps are on this machine: a plain loop, ours, and ours with stored logits, in one run.

The plain loop is the usual one: a DataLoader over a folder of JPEG files with torchvision's transforms for each,
CutMix, both networks in float32, Adam. Each is measured in a process of its own, in turn, several rounds; the ratios
are of the medians. Nothing is learnt here: patches are noise, the
teacher has random weights. Measure on an idle machine.

    scripts/bench_distill --out benchmarks/distill.txt
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from distill.augment import AugmentConfig, normalise
from distill.data.order import Order
from distill.data.view import Resident, View
from distill.device import pick_device
from distill.engine import Compile, Engine
from distill.labels import LabelFile, Labeller, LabelsManifest, StoredLogits
from distill.loop import Loop
from distill.losses import TemperedLossConfig, kl_loss, make_loss
from distill.models import build_model
from distill.optim import AdamConfig, make_optimizer, make_scheduler
from distill.targets import LiveTeacher, StoredTeacher, Targets

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
PATCHES = 20_000
WARM_UP = 3


def patches() -> Tensor:
    """Noise: uint8 (20,000, 32, 32, 3)."""
    return torch.randint(0, 256, (PATCHES, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def folder_of_jpegs(folder: Path) -> ImageFolder:
    """Patches as files, each through the usual transforms."""
    (folder / "patches").mkdir()
    for index, patch in enumerate(patches().numpy()):
        Image.fromarray(patch).save(folder / "patches" / f"{index:05d}.jpg")
    steps = [T.RandomHorizontalFlip(), T.RandomCrop(32, padding=4), T.ToTensor(), T.Normalize(MEAN, STD)]
    return ImageFolder(str(folder), transform=T.Compose(steps))


def plain(data: ImageFolder, arch: tuple[str, str], batch: int, steps: int, device: torch.device) -> dict[str, float]:
    """Images a second of the usual loop."""
    workers = min(8, os.cpu_count() or 1)
    teacher = build_model(arch[0], 10).eval().requires_grad_(False).to(device)
    student = build_model(arch[1], 10).train().to(device)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    on_gpu = device.type == "cuda"
    loader = DataLoader(data, batch_size=batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=on_gpu)
    done, started = 0, 0.0
    while done < steps:
        for loaded, _ in loader:
            if done == WARM_UP:
                started = _now(device)
            x = _cutmix(loaded.to(device, non_blocking=True))
            with torch.no_grad():
                target = teacher(x)
            loss = kl_loss(student(x), target, 8.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return {"images_per_second": (steps - WARM_UP) * batch / (_now(device) - started)}


def _cutmix(x: Tensor) -> Tensor:
    share = np.random.beta(0.25, 0.25)
    half = int(32 * (1 - share) ** 0.5) // 2
    row, column = np.random.randint(0, 32, 2)
    x = x.clone()
    rows = slice(max(row - half, 0), min(row + half, 32))
    columns = slice(max(column - half, 0), min(column + half, 32))
    x[:, :, rows, columns] = x.flip(0)[:, :, rows, columns]
    return x


def ours(
    arch: tuple[str, str], batch: int, steps: int, device: torch.device, compiling: Compile, *, stored: bool
) -> dict[str, float]:
    """Images a second of ``distill train``'s loop, and which share of a step is the loader's and the teacher's."""
    engine = Engine(device=device, precision="bf16", compile=compiling, steps=10**6, say=print)
    engine.prepare_process()
    samples = patches().to(device)
    source = Resident(samples=samples, order=Order(PATCHES, batch, 0), device=device)
    view = View(source=source, augment=AugmentConfig(), seed=0, period=steps)
    example = normalise(view.batch(0).images, MEAN, STD)
    targets: Targets
    with tempfile.TemporaryDirectory() as folder:
        if stored:
            targets = StoredTeacher(logits=_noise_logits(Path(folder), batch, steps), device=device)
        else:
            teacher = build_model(arch[0], 10).eval().requires_grad_(False)
            teacher.to(device, memory_format=torch.channels_last)
            targets = LiveTeacher(network=engine.frozen(teacher, example))
        loop = _loop(arch[1], view, targets, engine, steps)
        for step in range(WARM_UP):
            loop.train_step(step)
        started = _now(device)
        for step in range(WARM_UP, steps):
            loop.train_step(step)
        seconds = (_now(device) - started) / (steps - WARM_UP)
        parts = {"loader": _time(lambda: _load(view), device), "teacher": 0.0}
        batch_1 = view.batch(1)
        parts["teacher"] = _time(lambda: targets(batch_1, example), device)
    return {"images_per_second": batch / seconds, **{name: part / seconds for name, part in parts.items()}}


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
        precision="bf16",
        scaler=engine.scaler(),
        device=engine.device,
        arithmetic=engine.describe(),
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _time(call: Any, device: torch.device, repeats: int = 5) -> float:
    """Median seconds of ``call``."""
    call()
    times = []
    for _ in range(repeats):
        started = _now(device)
        call()
        times.append(_now(device) - started)
    return statistics.median(times)


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
@click.option("--variant", type=click.Choice(["plain", "live", "stored"]), hidden=True)
def main(
    teacher: str,
    student: str,
    batch: int,
    steps: int,
    rounds: int,
    device: str,
    compiling: Compile,
    out: Path | None,
    variant: str | None,
) -> None:
    """Measure steps a second, each way in a process of its own, in turn."""
    if variant is not None:
        where = pick_device(device)
        torch.manual_seed(0)
        if variant == "plain":
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps(plain(folder_of_jpegs(Path(folder)), (teacher, student), batch, steps, where)))
        else:
            print(json.dumps(ours((teacher, student), batch, steps, where, compiling, stored=variant == "stored")))
        return
    arguments = ["--teacher", teacher, "--student", student, "--batch", str(batch), "--steps", str(steps)]
    arguments += ["--device", device, "--compile", compiling]
    results: dict[str, list[dict[str, float]]] = {"plain": [], "live": [], "stored": []}
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
    rates = {n: [each["images_per_second"] for each in measured] for n, measured in results.items()}
    middle = {name: statistics.median(values) for name, values in rates.items()}
    share = {
        (name, part): statistics.median(each[part] for each in results[name])
        for name in ("live", "stored")
        for part in ("loader", "teacher")
    }
    titles = {"plain": "plain loop, float32, eager", "live": "ours, live teacher", "stored": "ours, stored logits"}
    return [
        f"{teacher} -> {student}, batch {batch}, 32 px, {steps} steps x {len(rates['plain'])} rounds on {machine}, "
        f"{platform.machine()}, torch {torch.__version__}",
        *(
            f"{titles[n]:30s} {middle[n]:10.0f} images/s   (rounds {', '.join(f'{v:.0f}' for v in rates[n])})"
            for n in titles
        ),
        f"share of a step with a live teacher: teacher {100 * share['live', 'teacher']:.0f} %, "
        f"loader and augmentation {100 * share['live', 'loader']:.1f} %; "
        f"with stored logits: loader and augmentation {100 * share['stored', 'loader']:.1f} %",
        f"ratio to the plain loop: live {middle['live'] / middle['plain']:.2f}, "
        f"stored {middle['stored'] / middle['plain']:.2f}",
    ]


if __name__ == "__main__":
    main()
