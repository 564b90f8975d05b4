"""The demo's small world: ten photographs that ship with scikit-image are ten classes of grayscale 32-px crops.

Crops of the left halves train a teacher; crops of the right halves are the test set, an image folder.
"""

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track

from distill.augment import normalise
from distill.models import build_model
from distill.weights import save_weights

CLASSES = (
    "astronaut",
    "brick",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "rocket",
)
SIZE = 32
HEIGHT = 300
TEST_CROPS = 100
STEPS = 1000
BATCH = 128
MEAN = STD = (0.5, 0.5, 0.5)

Gray = npt.NDArray[np.uint8]


def photograph(name: str) -> Gray:
    """A photograph in grayscale, 300 px high: uint8 (300, W)."""
    image = Image.fromarray(getattr(skimage.data, name)()).convert("L")
    return np.asarray(image.resize((round(image.width * HEIGHT / image.height), HEIGHT)))


def crops(half: Gray, count: int, rng: np.random.Generator) -> Gray:
    """Random crops of half a photograph: uint8 (count, 32, 32, 3), the three channels alike."""
    tops = rng.integers(0, half.shape[0] - SIZE + 1, count)
    lefts = rng.integers(0, half.shape[1] - SIZE + 1, count)
    rows = [half[y : y + SIZE, x : x + SIZE] for y, x in zip(tops, lefts, strict=True)]
    return np.repeat(np.stack(rows)[..., None], 3, axis=3)


def write_test_set(folder: Path, rng: np.random.Generator) -> None:
    """100 crops of each right half, as an image folder."""
    for name in CLASSES:
        photo = photograph(name)
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, crop in enumerate(crops(photo[:, photo.shape[1] // 2 :], TEST_CROPS, rng)):
            Image.fromarray(crop).save(folder / name / f"{number:03d}.png")


def train_teacher(path: Path, rng: np.random.Generator) -> None:
    """A ResNet-8 from labelled crops of the left halves, by plain supervised training."""
    halves = [photo[:, : photo.shape[1] // 2] for photo in map(photograph, CLASSES)]
    torch.manual_seed(0)
    model = build_model("resnet8", len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS)
    for _ in track(range(STEPS), description="teacher"):
        labels = rng.integers(0, len(CLASSES), BATCH)
        images = np.concatenate([crops(halves[label], 1, rng) for label in labels])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(normalise(torch.from_numpy(images), MEAN, STD))
        loss = F.cross_entropy(logits.float(), torch.from_numpy(labels), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    save_weights(path, model, arch="resnet8", num_classes=len(CLASSES), mean=MEAN, std=STD)


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Write OUT/test and OUT/teacher.safetensors, unless they are there."""
    if (out / "teacher.safetensors").exists():
        print(f"{out} is there already")
        return
    rng = np.random.default_rng(0)
    write_test_set(out / "test", rng)
    train_teacher(out / "teacher.safetensors", rng)


if __name__ == "__main__":
    main()
