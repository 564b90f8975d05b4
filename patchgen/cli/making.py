"""Define the commands ``export``, ``preview``, ``source`` and ``recipes``."""

import json
import re
from pathlib import Path

import click

from manifests.remote.cli_location import LocalPath, local_folder, require_local
from manifests.support.cli_options import allow_import_option
from manifests.support.console import say
from manifests.support.numbers import Count
from patchgen.cli.options import images, json_option, shards_argument
from patchgen.limits import MAX_SIDE
from patchgen.recipes import packaged_recipes, recipe_text

SIDE = Count(8, MAX_SIDE)
_BAGIT = "Also write the set as a BagIt bag into a new folder."
_EXTENT = "Width and height in pixels."
MAX_PIXELS = 1 << 28


def _parse_extent(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not WIDTHxHEIGHT; give a size in pixels, for example 2560x1920.")
    width, height = (SIDE.convert(int(side), param, ctx) for side in match.groups())
    if width * height > MAX_PIXELS:
        raise click.BadParameter(f"{value} has {width * height} pixels; give a size of at most {MAX_PIXELS} pixels.")
    return width, height


@click.command()
@shards_argument
@click.option("--dali", is_flag=True, help="Also write an index for NVIDIA DALI beside each shard.")
@click.option("--bagit", "bag", type=LocalPath(file_okay=False), metavar="DIR", help=_BAGIT)
@click.option("--card", "new_card", is_flag=True, help="Rename an edited card to README.md.edited; write a new card.")
@json_option
def export(shards: Path | str, dali: bool, bag: Path | None, new_card: bool, as_json: bool) -> None:
    """Write the dataset card (README.md), croissant.json, index.json and SHA256SUMS of a set again.

    A build writes these files too. The command changes no patch, shard or manifest. Only --card replaces a card that
    you edited. A BagIt bag (--bagit) contains the card in the folder of the set.

    Example: patchgen export shards/ --dali
    """
    from patchgen.export import export as run_export  # noqa: PLC0415
    from patchgen.export import export_bag  # noqa: PLC0415

    folder = require_local(shards, "export cannot write to a URL; download the set into a folder first")
    written = run_export(folder, dali=dali, new_card=new_card)
    if bag is not None:
        export_bag(written, bag)
    if as_json:
        value = {"files": list(written.files), "edited_card": written.edited_card, "bag": bag and str(bag)}
        click.echo(json.dumps(value))
        return
    for name in written.files:
        click.echo(name)
    if written.edited_card:
        stays = "" if new_card else ", so it was not replaced; add --card to write a new card"
        say(f"{written.edited_card} is the card that you edited{stays}")
    if bag is not None:
        say(f"the BagIt bag is in {bag}")


@click.command()
@shards_argument
@click.option("--out", required=True, type=LocalPath(dir_okay=False), help="A .png or .jpg file.")
@images(required=False, help_text="The photo of the set, to show it with the outline of every patch.")
@click.option("--count", type=Count(1, 1000), help="Number of patches [default: 60, or 30 with --image].")
@allow_import_option
def preview(shards: Path | str, out: Path, images: tuple[Path, ...], count: int | None) -> None:
    """Draw a contact sheet of a set.

    With --image, the sheet also shows the photo, with the outline of each patch.

    Example: patchgen preview shards/ --out sheet.png --image photo.jpg
    """
    from manifests.patchset import open_folder  # noqa: PLC0415
    from patchgen.preview import contact_sheet, write_sheet  # noqa: PLC0415
    from patchgen.sources.photo import read_photos  # noqa: PLC0415

    photos = read_photos(images)
    sheet = contact_sheet(open_folder(local_folder(shards)), photos, count=count or (30 if photos else 60))
    write_sheet(out, sheet)
    click.echo(f"{out}: {sheet.width}×{sheet.height} px")


@click.command()
@click.argument("kind", type=click.Choice(["noise", "fractal", "dead-leaves"]))
@click.option(
    "--size", default="2560x1920", show_default=True, metavar="WIDTHxHEIGHT", callback=_parse_extent, help=_EXTENT
)
@click.option("--seed", default=0, show_default=True, type=Count(0, 2**53 - 1))
@click.option("--out", required=True, type=LocalPath(dir_okay=False), help="A .png file.")
def source(kind: str, size: tuple[int, int], seed: int, out: Path) -> None:
    """Write a synthetic image that can replace a photo. Every machine generates the same pixels.

    Example: patchgen source noise --size 2560x1920 --seed 0 --out noise.png
    """
    from manifests.format.digest import pixel_digest  # noqa: PLC0415
    from patchgen.sources.synthetic import make_source, write_source  # noqa: PLC0415

    pixels = make_source(kind, *size, seed)
    write_source(out, pixels)
    click.echo(f"{out}: {size[0]}×{size[1]} px, pixels {pixel_digest(pixels).hex()}")


@click.command()
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the packaged recipes. With NAME, print the text of this recipe, so that you can edit a copy.

    Example: patchgen recipes asano2023 > mine.yaml
    """
    names = packaged_recipes()
    if name is None:
        for known in names:
            first = recipe_text(known).splitlines()[0]
            click.echo(f"{known:<18} {first.removeprefix('# ')}")
    elif name in names:
        click.echo(recipe_text(name), nl=False)
    else:
        raise click.UsageError(f"{name!r} is not a packaged recipe; give one of {', '.join(names)}.")
