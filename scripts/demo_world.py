"""The demo's small world: ten photographs that ship with scikit-image are ten classes of grayscale 32-px crops.

Crops of the left halves are the training images, crops of the right halves the test images: an image folder each.
"""

import shutil
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image
from rich.progress import track

CLASSES = (
    *("astronaut", "brick", "chelsea", "coffee", "coins"),
    *("grass", "gravel", "hubble_deep_field", "immunohistochemistry", "motorcycle"),
)
SIZE = 32
HEIGHT = 140
CROPS = {"train": 1000, "test": 200}

Gray = npt.NDArray[np.uint8]


def photograph(name: str) -> Gray:
    """A photograph in grayscale, 140 px high: uint8 (140, W)."""
    pixels = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    image = Image.fromarray(pixels).convert("L")
    return np.asarray(image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS))


def write_crops(half: Gray, folder: Path, count: int, rng: np.random.Generator) -> None:
    """Random crops of half a photograph, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    tops = rng.integers(0, half.shape[0] - SIZE + 1, count)
    lefts = rng.integers(0, half.shape[1] - SIZE + 1, count)
    for number, (y, x) in enumerate(zip(tops, lefts, strict=True)):
        Image.fromarray(half[y : y + SIZE, x : x + SIZE]).save(folder / f"{number:04d}.png")


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Write OUT/train and OUT/test, a folder a class."""
    rng = np.random.default_rng(0)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name in track(CLASSES, description="crops"):
        photo = photograph(name)
        middle = photo.shape[1] // 2
        for split, half in (("train", photo[:, :middle]), ("test", photo[:, middle:])):
            write_crops(half, part / split / name, CROPS[split], rng)
    part.rename(out)  # whole or absent
    print(f"{out}: {len(CLASSES)} classes, {CROPS['train']} training and {CROPS['test']} test crops of each")


if __name__ == "__main__":
    main()
