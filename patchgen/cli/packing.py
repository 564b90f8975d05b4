"""The command that packs images of other data sets: ``pack``."""

from pathlib import Path

import click

from manifests.limits import IMAGE_FORMATS, ImageFormat
from manifests.remote.cli_location import LocalPath
from manifests.support.console import say
from manifests.support.numbers import Count
from patchgen.cli.building import report_set
from patchgen.cli.options import (
    CARD_KEYS,
    cores,
    destination,
    json_option,
    out_option,
    preload_workers,
    resumable,
    workers_option,
)
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE


@click.command()
@click.argument("data", type=LocalPath())
@out_option
@click.option("--size", type=Count(MIN_SIZE, MAX_SIZE), help="Pixels a side [default: the images' own].")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(IMAGE_FORMATS),
    help="Image format [default: the images' own, or png].",
)
@click.option("--shard-size", type=Count(1, MAX_SHARD_PATCHES), help="Images a shard [default: by --size].")
@workers_option
@click.option("--license", help="License of the images, for the manifest.")
@click.option("--url", help="Where they are published, for the manifest.")
@click.option("--attribution", help="Whom to credit for them, for the manifest.")
@json_option
def pack(
    data: Path,
    out: Path | str,
    size: int | None,
    image_format: ImageFormat | None,
    shard_size: int | None,
    workers: int | None,
    as_json: bool,
    **card: str | None,
) -> None:
    """Write other images as a patch set.

    Students train on them as on patches. DATA is a folder of images, with subfolders or without, WebDataset
    tars, or CIFAR's files. Squares of one size and one format are copied byte for byte; of others the
    largest central square is scaled to --size. Labels are left out, and so are test images beside training images.

    Example: patchgen pack cifar-10-batches-bin/ --out full/
    """
    preload_workers(workers)
    from patchgen.pipeline.pack import pack as run_pack  # noqa: PLC0415

    with resumable(), destination(out) as to:
        manifest = run_pack(
            data,
            to.folder,
            size=size,
            image_format=image_format,
            shard_size=shard_size,
            workers=cores(workers),
            card={CARD_KEYS[option]: text for option, text in card.items()},
        )
    if manifest.recipe["fit"] == "centre" and not as_json:
        say(f"encoded again as {manifest.size} px {manifest.encoding.format}: not every image is such a file")
    report_set(manifest, out, as_json)
