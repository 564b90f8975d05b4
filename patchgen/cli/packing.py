"""The command that takes other people's images: ``pack``."""

from pathlib import Path

import click

from manifests.limits import IMAGE_FORMATS, ImageFormat
from manifests.remote.cli_location import LocalPath
from manifests.support.console import say
from manifests.support.numbers import Count
from patchgen.cli.building import prepare_workers, report_set
from patchgen.cli.options import cores, json_option, out_folder, resumable, workers_option
from patchgen.cli.placing import destination
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE


@click.command()
@click.argument("data", type=LocalPath())
@out_folder
@click.option("--size", type=Count(MIN_SIZE, MAX_SIZE), help="Pixels a side [default: the images' own].")
@click.option(
    "--format",
    "image_format",
    type=click.Choice(IMAGE_FORMATS),
    help="Image format [default: the images' own, or png].",
)
@click.option("--shard-size", type=Count(1, MAX_SHARD_PATCHES), help="Images a shard [default: by --size].")
@workers_option
@click.option("--license", "licence", help="License of the images, for the manifest.")
@click.option("--url", help="Where they are published; likewise.")
@click.option("--attribution", help="Whom to name for them; likewise.")
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

    Students learn from them as from patches. DATA is a folder of images, with sub-folders or without, WebDataset
    tars, or CIFAR's files. Squares of one size and one format are copied byte for byte; from others the
    largest square in the middle is scaled to --size. Labels are left out, and so are test images that stand beside
    training images.

    Example: patchgen pack cifar-10-batches-bin/ --out full/
    """
    prepare_workers(workers)
    from patchgen.pipeline.pack import pack as run_pack  # noqa: PLC0415

    with resumable(), destination(out) as place:
        manifest = run_pack(
            data,
            place.folder,
            size=size,
            image_format=image_format,
            shard_size=shard_size,
            workers=cores(workers),
            card=card,
        )
    if manifest.recipe["fit"] == "centre" and not as_json:
        say(f"stored anew as {manifest.size} px {manifest.encoding.format}: not every image is such a file")
    report_set(manifest, out, as_json)
