"""Kill runs at random moments and compare the results; compare stored logits with a live teacher.

python scripts/stress/torture_distill.py --kills 5
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import safetensors.torch
import torch

from distill.models import build_model
from distill.weights.files import save_weights
from patchgen.sources.synthetic import make_source, write_source

CONFIG = """
teacher: {arch: resnet20, num_classes: 10, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
student: {arch: resnet8}
optim: {name: adam, lr: 0.004, schedule: onecycle}
data: {batch_size: 64}
train: {samples: 25600, precision: bf16, checkpoint_seconds: 1, ema: 0.99}
"""


def prepare(folder: Path) -> None:
    """Make a set of 5000 patches of dead leaves, a teacher with random weights and statistics, and a config."""
    image = folder / "leaves.png"
    write_source(image, make_source("dead-leaves", 640, 480, 0))
    build = ["build", "--image", str(image), "--n", "5000", "--shard-size", "1000", "--out", str(folder / "shards")]
    subprocess.run([sys.executable, "-m", "patchgen", *build], check=True, stdout=subprocess.DEVNULL)
    torch.manual_seed(0)
    teacher = build_model("resnet20", 10).train()
    for _ in range(20):
        teacher(torch.randn(64, 3, 32, 32))
    stats = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    save_weights(
        folder / "teacher.safetensors", teacher, arch="resnet20", num_classes=10, mean=stats[0], std=stats[1]
    )
    (folder / "config.yaml").write_text(CONFIG)


def command(folder: Path, name: str, *extra: str) -> list[str]:
    """Return the command that trains into ``name`` or resumes there."""
    base = ["train", "--shards", folder / "shards", "--config", folder / "config.yaml", "--device", "cpu"]
    return [sys.executable, "-m", "distill", *map(str, base), "--out", str(folder / name), "--resume", *extra]


def train(folder: Path, name: str, *extra: str) -> bytes:
    """Train to the end and return the bytes of the student's file."""
    extra = extra or ("--teacher", str(folder / "teacher.safetensors"))
    subprocess.run(command(folder, name, *extra), check=True, stdout=subprocess.DEVNULL)
    return (folder / name / "student.safetensors").read_bytes()


def kill_runs(folder: Path, kills: int, chance: random.Random) -> None:
    """Kill ``kills`` runs, alternating SIGKILL and SIGTERM, once or twice each; resume and compare each student."""
    started = time.monotonic()
    expected = train(folder, "whole")
    seconds = time.monotonic() - started
    if train(folder, "again") != expected:
        sys.exit("two runs of one seed differ")
    click.echo("two runs of one seed: the same bytes")
    for number in range(kills):
        name, moments = f"cut{number}", sorted(chance.uniform(2, seconds) for _ in range(1 + number % 2))
        hits = 0
        for index, moment in enumerate(moments):
            process = subprocess.Popen(
                command(folder, name, "--teacher", str(folder / "teacher.safetensors")),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(moment)
            if process.poll() is None:
                hits += 1
            process.send_signal(signal.SIGKILL if (number + index) % 2 == 0 else signal.SIGTERM)
            process.wait()
        if train(folder, name) != expected:
            sys.exit(f"run {number + 1}, stopped after {moments} s, ends with another student")
        click.echo(
            f"run {number + 1}, stopped after {', '.join(f'{m:.1f}' for m in moments)} s ({hits} hit): the same bytes"
        )


def compare_stored(folder: Path) -> None:
    """Train from stored logits and print how much the weights differ from those with the live teacher."""
    base = ["--shards", folder / "shards", "--config", folder / "config.yaml", "--device", "cpu"]
    label = ["make-logits", *base, "--teacher", folder / "teacher.safetensors", "--out", folder / "labels"]
    subprocess.run([sys.executable, "-m", "distill", *map(str, label)], check=True, stdout=subprocess.DEVNULL)
    train(folder, "stored", "--teacher-logits", str(folder / "labels"))
    live, stored = (
        safetensors.torch.load_file(folder / name / "student.safetensors") for name in ("whole", "stored")
    )
    names = [name for name in live if name.endswith("weight")]
    change = max(float((live[n] - stored[n]).norm() / live[n].norm()) for n in names)
    click.echo(f"stored logits: weights differ by at most {100 * change:.2g} % of their norm in any layer")


@click.command()
@click.option("--kills", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(kills: int, seed: int) -> None:
    """Run the tests; a failure ends with a message and status 1."""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        prepare(folder)
        kill_runs(folder, kills, random.Random(seed))
        compare_stored(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
