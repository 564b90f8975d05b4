"""Measure the peak memory of an evaluation of many large images, such as ImageNet's validation set.

    python scripts/bench_eval_memory.py --images 50000 --arch torchvision/resnet50

The images are links to 2,000 different JPEGs of 400×350 px, in class folders of 1,000 classes. A process of its own
evaluates a network with random weights at 224 px on the CPU, and prints its peak resident memory.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from distill.commands.evaluate import evaluate as run
from distill.models import build_model
from distill.targets.teacher import Network

LIGHT = "light:linear"  # a linear layer, so that the time of decoding dominates
DIFFERENT, CLASSES, WIDTH, HEIGHT = 2000, 1000, 400, 350


def write_images(root: Path, count: int) -> None:
    """Write class folders with ``count`` links to JPEGs of noise and gradients, which have about 60 KB each."""
    rng, originals = np.random.default_rng(0), root / "originals"
    originals.mkdir()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(min(DIFFERENT, count)):
        base = np.stack([rows * rng.random() + columns * rng.random() for _ in range(3)], axis=-1) / 3
        pixels = (base + rng.normal(0, 24, base.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(originals / f"{number}.jpg", quality=85)
    for label in range(CLASSES):
        (root / "val" / f"{label:04d}").mkdir(parents=True)
    for number in range(count):
        link = root / "val" / f"{number % CLASSES:04d}" / f"{number}.jpg"
        link.symlink_to(originals / f"{number % DIFFERENT}.jpg")


def evaluate(data: Path, arch: str, size: int) -> None:
    """Evaluate a network with random weights. Print one JSON object with the figures and the peak memory."""
    torch.manual_seed(0)
    light = nn.Sequential(nn.AvgPool2d(size // 7), nn.Flatten(), nn.Linear(3 * 7 * 7, CLASSES))
    model = light.eval() if arch == LIGHT else build_model(arch, CLASSES).eval()
    known = {"arch": arch, "num_classes": CLASSES, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    network = Network(path=Path("random"), sha256="", model=model, **known)
    started, before = time.perf_counter(), peak()
    figures = run(network, data, size, network, torch.device("cpu"))
    result = {"images": figures["images"], "top1": figures["top1"], "seconds": round(time.perf_counter() - started)}
    print(json.dumps(result | {"peak_gib": round(peak(), 2), "before_gib": round(before, 2)}))


def peak() -> float:
    """Return the largest resident memory of this process until now, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (30 if sys.platform == "darwin" else 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--arch", default=LIGHT, help="default: one linear layer")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--data", type=Path, help="a folder of labelled images; default: write one")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        evaluate(options.data, options.arch, options.size)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "val"
        if options.data is None:
            write_images(Path(folder), options.images)
        own = ["--inside", "--data", str(data), "--arch", options.arch, "--size", str(options.size)]
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        subprocess.run([sys.executable, __file__, *own], check=True, env=os.environ | {"PYTHONPATH": path})


if __name__ == "__main__":
    main()
