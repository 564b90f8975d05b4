"""Write the data of the demo: 32-px crops of eight photographs of scikit-image and scikit-learn, a class for each.

Training images are crops of the left halves, test images crops of the right halves. Each split is an image folder.
"""

import shutil
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_sample_image

CLASSES = (
    *("astronaut", "chelsea", "coffee", "flower"),
    *("hubble_deep_field", "immunohistochemistry", "motorcycle", "rocket"),
)
SIZE = 32
HEIGHT = 140
CROPS = {"train": 1000, "test": 200}

Pixels = npt.NDArray[np.uint8]


def photograph(name: str) -> Pixels:
    """Return a photograph, 140 px high: uint8 (140, W, 3), RGB."""
    if name == "flower":
        pixels = load_sample_image("flower.jpg")
    else:
        pixels = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS))


def write_crops(half: Pixels, folder: Path, count: int, rng: np.random.Generator) -> None:
    """Write ``count`` random crops of half a photograph as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    tops = rng.integers(0, half.shape[0] - SIZE + 1, count)
    lefts = rng.integers(0, half.shape[1] - SIZE + 1, count)
    for number, (y, x) in enumerate(zip(tops, lefts, strict=True)):
        Image.fromarray(half[y : y + SIZE, x : x + SIZE]).save(folder / f"{number:04d}.png")


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Write OUT/train and OUT/test, each with a folder for every class."""
    rng = np.random.default_rng(0)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    console = Console(stderr=True)
    for name in track(CLASSES, description="crops", console=console, disable=not console.is_terminal):
        photo = photograph(name)
        middle = photo.shape[1] // 2
        for split, half in (("train", photo[:, :middle]), ("test", photo[:, middle:])):
            write_crops(half, part / split / name, CROPS[split], rng)
    part.rename(out)  # so that OUT is complete or absent
    print(f"{out}: {len(CLASSES)} classes, {CROPS['train']} training and {CROPS['test']} test crops per class")


if __name__ == "__main__":
    main()
