"""Commands that write a set: ``build``, ``rebuild``, ``extend``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests.processes import start_server
from manifests.schema import IMAGE_FORMATS, MAX_PATCHES
from patchgen.cli.options import cores, counted_shards, images, out_folder, resumable, shards_argument, workers_option
from patchgen.limits import MAX_SHARD_PATCHES, MAX_SIZE, MIN_SIZE

if TYPE_CHECKING:
    from manifests import Manifest


@click.command()
@images(required=True, help_text="The photo. Given several times, patches come from all of them alike.")
@click.option("--n", required=True, type=click.IntRange(1, MAX_PATCHES), help="How many patches.")
@out_folder
@click.option("--size", default=32, show_default=True, type=click.IntRange(MIN_SIZE, MAX_SIZE), help="Pixels a side.")
@click.option("--recipe", default="asano2023", show_default=True, help="A packaged recipe or a YAML file.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**53 - 1))
@click.option(
    "--format", "image_format", type=click.Choice(IMAGE_FORMATS), help="Image format [default: the recipe's]."
)
@click.option("--shard-size", type=click.IntRange(1, MAX_SHARD_PATCHES), help="Patches a shard [default: by --size].")
@workers_option
@click.option("--licence", help="Licence of the photo, for the manifest.")
@click.option("--url", help="Where the photo is published, for the manifest.")
@click.option("--attribution", help="Whom to name for the photo, for the manifest.")
def build(
    images: tuple[Path, ...],
    n: int,
    out: Path,
    size: int,
    recipe: str,
    seed: int,
    image_format: str | None,
    shard_size: int | None,
    workers: int | None,
    **card: str | None,
) -> None:
    """Write N patches of one photo into a folder of WebDataset shards with a hash manifest.

    Equal options give equal bytes on any machine. Run the same command again to finish a build that was
    interrupted.

    Example: patchgen build --image photo.jpg --n 50000 --out shards/
    """
    workers = _workers_for(workers)
    from patchgen.build import build as run_build  # noqa: PLC0415
    from patchgen.plan import make_plan  # noqa: PLC0415
    from patchgen.recipe import load_recipe  # noqa: PLC0415
    from patchgen.source import read_photo  # noqa: PLC0415

    photos = [read_photo(image) for image in images]
    plan = make_plan(
        photos=photos,
        recipe=load_recipe(recipe).with_format(image_format),
        n=n,
        size=size,
        seed=seed,
        shard_size=shard_size,
        card=card,
    )
    with resumable():
        manifest = run_build(plan, photos, out, workers=workers)
    _say(manifest)
    if plan.recipe.profile == "fast":
        click.echo(
            f"recipe {plan.recipe.name!r} names transforms that are not known to be exact: "
            "another CPU may make other bytes of it (profile: fast)",
            err=True,
        )


@click.command()
@click.option(
    "--manifest", required=True, type=click.Path(path_type=Path), help="A manifest.json, or a set's folder."
)
@images(required=True, help_text="The photo it was made of; several in the order of the manifest's sources.")
@out_folder
@workers_option
def rebuild(manifest: Path, images: tuple[Path, ...], out: Path, workers: int | None) -> None:
    """Make the set that a manifest describes, byte for byte, or say what differs and stop.

    Every shard is compared with the manifest as soon as it is made. Run again to go on after an interruption.

    Example: patchgen rebuild --manifest manifest.json --image photo.jpg --out shards/
    """
    workers = _workers_for(workers)
    from patchgen.rebuild import read_manifest  # noqa: PLC0415
    from patchgen.rebuild import rebuild as run_rebuild  # noqa: PLC0415
    from patchgen.source import read_photo  # noqa: PLC0415

    wanted = read_manifest(manifest)
    photos = [read_photo(image) for image in images]
    with resumable():
        made = run_rebuild(wanted, photos, out, workers=workers)
    _say(made)
    if made != wanted:
        click.echo(
            "every patch and shard is the manifest's; the Parquet tables were written by another version of "
            "PyArrow and differ, which changes no set_id",
            err=True,
        )


@click.command()
@shards_argument
@click.option("--n", required=True, type=click.IntRange(1, MAX_PATCHES), help="How many patches in all.")
@images(required=True, help_text="The photo it was made of; several in the order of the manifest's sources.")
@workers_option
def extend(shards: Path, n: int, images: tuple[Path, ...], workers: int | None) -> None:
    """Make a set longer. The result is the set that a build of N patches makes; no patch changes.

    Example: patchgen extend shards/ --n 2000000 --image photo.jpg
    """
    workers = _workers_for(workers)
    from patchgen.rebuild import extend as run_extend  # noqa: PLC0415
    from patchgen.source import read_photo  # noqa: PLC0415

    photos = [read_photo(image) for image in images]
    with resumable():
        manifest = run_extend(shards, n, photos, workers=workers)
    _say(manifest)


def _workers_for(workers: int | None) -> int:
    """How many processes to use; if several, the server they come from starts now, beside this one's imports."""
    workers = cores(workers)
    if workers > 1:
        start_server("patchgen.write")
    return workers


def _say(manifest: "Manifest") -> None:
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    click.echo(f"{manifest.n} patches of {manifest.size} px in {counted_shards(manifest)}, {megabytes:,.1f} MB")
    click.echo(f"set_id {manifest.set_id}")
