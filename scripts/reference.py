"""The authors' recipe, made the straightforward way: PIL and torchvision, one patch after the other.

What it follows is the published script of "The Augmented Image Prior" (arXiv 2112.00725). It is what patchgen
measures itself against, in speed (``scripts/bench_patchgen``) and in the students its patches train. Run as a
program it writes those patches as a patch set, with a manifest that names no packaged recipe:

    python scripts/reference.py --image animals.jpg --n 50000 --out reference-set/
"""

import functools
import hashlib
import io
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
import torchvision.transforms as T
from PIL import Image
from rich.progress import track

from manifests import rows, tar
from manifests.digest import file_digest, pixel_digest, pixel_root
from manifests.files import atomic_file, write_atomically
from manifests.schema import make_manifest, patch_key, shard_name

SHARD = 10_000
SQUARE = 0.5
QUALITY = 75

Patch = npt.NDArray[np.uint8]


def reference_transform(photo: Image.Image, size: int) -> Callable[[Image.Image], Image.Image]:
    """The recipe as a torchvision transform from the photo to a patch of ``size`` px, both RGB PIL images."""
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
    """A patch as PIL writes it: JPEG of quality 75 with 4:2:0 chroma, or PNG."""
    buffer = io.BytesIO()
    if image_format == "jpg":
        patch.save(buffer, "JPEG", quality=QUALITY)
    else:
        patch.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def reference_patches(
    image: Path, size: int, seed: int, image_format: str, indices: range
) -> list[tuple[Patch, bytes]]:
    """Patches and their encoded bytes; each index seeds its own draws."""
    torch.set_num_threads(1)
    with Image.open(image) as file:
        photo = file.convert("RGB")
    transform = reference_transform(photo, size)
    made = []
    for index in indices:
        torch.manual_seed((seed << 32) + index)
        patch = transform(photo)
        made.append((np.asarray(patch), encode(patch, image_format)))
    return made


def write_shard(out: Path, number: int, first: int, image_format: str, made: list[tuple[Patch, bytes]]) -> Any:
    """One shard and its table, as the format says; returns the manifest's entry."""
    contract: dict[str, list[Any]] = {field.name: [] for field in rows.CONTRACT}
    path = out / shard_name(number)
    with atomic_file(path) as file:
        for index, (patch, data) in enumerate(made, start=first):
            file.write(tar.header(f"{patch_key(index)}.{image_format}", len(data)))
            values = (
                patch_key(index),
                index,
                file.tell(),
                len(data),
                hashlib.sha256(data).digest(),
                pixel_digest(patch),
            )
            for column, value in zip(contract.values(), values, strict=True):
                column.append(value)
            file.write(data + tar.padding(len(data)))
        file.write(tar.END)
    table = path.with_suffix(".parquet")
    pq.write_table(rows.table(contract, {}, b"{}"), table)
    entry = {
        name: {"name": f.name, "bytes": f.stat().st_size, "sha256": file_digest(f)}
        for name, f in (("tar", path), ("parquet", table))
    }
    pixels = b"".join(contract["pixels"])
    return pixels, entry["tar"] | {"n": len(made), "first_index": first, "parquet": entry["parquet"]}


@click.command()
@click.option("--image", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--n", default=50_000, show_default=True, type=click.IntRange(1))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--size", default=32, show_default=True, type=click.IntRange(8))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option("--format", "image_format", default="jpg", show_default=True, type=click.Choice(["jpg", "png"]))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def main(image: Path, n: int, out: Path, size: int, seed: int, image_format: str, workers: int) -> None:
    """Write the authors' patches, made with PIL and torchvision, as a patch set."""
    out.mkdir(parents=True)
    ranges = [range(first, min(first + SHARD, n)) for first in range(0, n, SHARD)]
    make = functools.partial(reference_patches, image, size, seed, image_format)
    shards, digests = [], []
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for number, made in enumerate(track(pool.imap(make, ranges), "shards", total=len(ranges))):
            pixels, shard = write_shard(out, number, ranges[number].start, image_format, made)
            digests.append(pixels)
            shards.append(shard)
    with Image.open(image) as file:
        photo = np.asarray(file.convert("RGB"))
    manifest = make_manifest(
        n=n,
        size=size,
        seed=seed,
        encoding={"format": image_format, "library": "Pillow"},
        recipe={"name": "reference", "profile": "fast"},
        sources=[
            {
                "name": image.name,
                "sha256": file_digest(image),
                "pixels": pixel_digest(photo).hex(),
                "width": photo.shape[1],
                "height": photo.shape[0],
            }
        ],
        shards=shards,
        pixel_root=pixel_root(digests),
        environment={},
    )
    write_atomically(out / "manifest.json", manifest.to_json())
    click.echo(f"set_id {manifest.set_id}")


if __name__ == "__main__":
    main()
