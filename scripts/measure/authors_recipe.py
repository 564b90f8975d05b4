"""Make patches by the authors' recipe with PIL and torchvision, one patch at a time.

It follows the script of "The Augmented Image Prior" (arXiv 2112.00725). patchgen is compared with it in speed
(``scripts/bench_patchgen``) and in the accuracy of students (``benchmarks/students.md``). As a program it writes the
patches as image files, which ``patchgen pack`` turns into a set:

    python scripts/measure/authors_recipe.py --image animals.jpg --n 50000 --out reference/
    patchgen pack reference/ --out reference-set/
"""

import functools
import io
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import click
import torch
import torchvision.transforms as T
from PIL import Image
from rich.progress import track

CHUNK = 1_000
SQUARE = 0.5
QUALITY = 75


def reference_transform(photo: Image.Image, size: int) -> Callable[[Image.Image], Image.Image]:
    """Return the recipe as a torchvision transform from the photo to a patch of ``size`` px, both RGB PIL images."""
    side = math.floor(math.sqrt(2) * size)
    jitter = T.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    return T.Compose(
        [
            T.RandomCrop(math.floor(SQUARE * min(photo.size))),
            T.RandomResizedCrop(
                side, scale=(1 / 500, 1), ratio=(3 / 4, 4 / 3), interpolation=T.InterpolationMode.BICUBIC
            ),
            T.RandomAffine(degrees=30, shear=30, interpolation=T.InterpolationMode.BILINEAR),
            T.CenterCrop(size),
            T.RandomApply([jitter], p=0.5),
        ]
    )


def encode(patch: Image.Image, image_format: str) -> bytes:
    """Encode a patch with PIL: JPEG of quality 75 with 4:2:0 chroma, or PNG."""
    buffer = io.BytesIO()
    if image_format == "jpg":
        patch.save(buffer, "JPEG", quality=QUALITY)
    else:
        patch.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def reference_patches(image: Path, size: int, seed: int, image_format: str, indices: range) -> list[bytes]:
    """Return encoded patches; each index seeds its own random draws."""
    torch.set_num_threads(1)
    with Image.open(image) as file:
        photo = file.convert("RGB")
    transform = reference_transform(photo, size)
    made = []
    for index in indices:
        torch.manual_seed((seed << 32) + index)
        made.append(encode(transform(photo), image_format))
    return made


@click.command()
@click.option("--image", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--n", default=50_000, show_default=True, type=click.IntRange(1))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--size", default=32, show_default=True, type=click.IntRange(8))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--format", "image_format", default="jpg", show_default=True, type=click.Choice(["jpg", "png"]))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def main(image: Path, n: int, out: Path, size: int, seed: int, image_format: str, workers: int) -> None:
    """Write the authors' patches, made with PIL and torchvision, as image files."""
    out.mkdir(parents=True)
    ranges = [range(first, min(first + CHUNK, n)) for first in range(0, n, CHUNK)]
    make = functools.partial(reference_patches, image, size, seed, image_format)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for indices, made in zip(ranges, track(pool.imap(make, ranges), "patches", total=len(ranges)), strict=True):
            for index, data in zip(indices, made, strict=True):
                (out / f"{index:09d}.{image_format}").write_bytes(data)
    print(f"{n} patches; next: patchgen pack {out} --out {out}-set")


if __name__ == "__main__":
    main()
