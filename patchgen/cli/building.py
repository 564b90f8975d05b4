"""Define the commands that write a set: ``build``, ``rebuild``, ``extend``, ``pack``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manifests.limits import MAX_PATCHES
from manifests.remote.cli_location import LocalPath, Location, NameOrPath, location_name, require_local
from manifests.support.cli_options import allow_import_option
from manifests.support.console import note, say, shell_word
from manifests.support.counts import counted
from manifests.support.numbers import Count
from patchgen.cli import options
from patchgen.cli.options import Paths
from patchgen.limits import MAX_SIZE, MIN_SIZE

if TYPE_CHECKING:
    from manifests import Manifest
    from patchgen.pipeline.plan import BuildPlan, Card
    from patchgen.sources.photo import Photo

_SPAN = "Build only the shards A to B, counted from 0. The same command without --shards finishes the set."
_SIZE = Count(MIN_SIZE, MAX_SIZE)


@click.command()
@options.images(required=True, help_text="The photo. Of several photos, each patch shows one, drawn uniformly.")
@click.option("--n", required=True, type=Count(1, MAX_PATCHES), help="Number of patches.")
@options.out_option
@click.option("--size", default=32, show_default=True, type=_SIZE, help="Side of a patch in pixels.")
@click.option(
    "--recipe", default="asano2023", show_default=True, type=NameOrPath(), help="A packaged recipe or a YAML file."
)
@click.option("--seed", default=0, show_default=True, type=Count(0, 2**53 - 1))
@options.format_option("the recipe's format")
@options.shard_size_option("Patches")
@options.workers_option
@options.scheduler_option
@allow_import_option
@click.option("--shards", "span", metavar="A-B", callback=options.parse_span, help=_SPAN)
@click.option("--license", multiple=True, help="License of the photo, given once, or once for each --image.")
@click.option("--url", multiple=True, help="URL of the photo, given once, or once for each --image.")
@click.option("--attribution", multiple=True, help="Whom to credit, given once, or once for each --image.")
@options.json_option
def build(
    images: Paths,
    out: Path | str,
    recipe: str,
    image_format: str | None,
    workers: int | None,
    scheduler: str | None,
    span: range | None,
    as_json: bool,
    **others: Any,
) -> None:
    """Write N patches of a photo as WebDataset shards with a manifest.

    The same options produce the same bytes on every machine. Run the same command again to finish a build that was
    interrupted.

    Example: patchgen build --image photo.jpg --n 50000 --out shards/
    """
    if span is not None and scheduler is not None:
        raise click.UsageError("--shards and --scheduler cannot be used together; remove one of them.")
    cards = _cards({option: others.pop(option) for option in options.CARD_KEYS}, len(images))
    options.preload_workers(workers, scheduler)
    from patchgen.pipeline import build, plan  # noqa: PLC0415
    from patchgen.recipe import load_recipe  # noqa: PLC0415
    from patchgen.sources.photo import read_photos  # noqa: PLC0415

    photos, chosen = read_photos(images), load_recipe(recipe).with_format(image_format)
    new_set = plan.make_plan(photos=photos, recipe=chosen, cards=cards, **others)
    if span is not None:
        build_span(new_set, photos, out, span, workers, as_json)
        return
    with options.building(out, workers, scheduler, new_set.build_id) as (folder, builders):
        manifest = build.build(new_set, photos, folder, workers=builders)
    report_set(manifest, out, as_json)
    if chosen.inexact:
        note(chosen.inexact_note)


@click.command()
@click.option("--manifest", required=True, type=Location(), help="A manifest.json, or the folder or URL of a set.")
@options.set_image_option
@options.out_option
@options.workers_option
@options.scheduler_option
@allow_import_option
@options.json_option
def rebuild(
    manifest: Path | str, images: Paths, out: Path | str, workers: int | None, scheduler: str | None, as_json: bool
) -> None:
    """Build the set of a manifest again, with the same bytes in every tar.

    The command compares every tar with the manifest as soon as the tar is built, and ends at the first difference.
    To continue after an interruption, run the command again. To repair a damaged set, give its folder as --out.

    Example: patchgen rebuild --manifest manifest.json --image photo.jpg --out shards/
    """
    options.preload_workers(workers, scheduler)
    from patchgen.pipeline import build, output_dir, plan  # noqa: PLC0415
    from patchgen.sources.photo import read_photos  # noqa: PLC0415

    expected, photos = output_dir.read_manifest(manifest), read_photos(images)
    same_set = plan.plan_of(expected, photos, n=expected.n)
    with options.building(out, workers, scheduler, same_set.build_id) as (folder, builders):
        built = build.build(same_set, photos, folder, workers=builders, expected=expected)
    report_set(built, out, as_json)
    if built != expected:
        note("all patches, all tars and the set_id are equal to those in the manifest")
        what = "the Parquet tables differ, because another version of PyArrow wrote the original tables"
        note(f"{what}; no action is needed")


@click.command()
@options.shards_argument
@click.option("--n", required=True, type=Count(1, MAX_PATCHES), help="Number of patches after the extension.")
@options.set_image_option
@options.workers_option
@options.scheduler_option
@allow_import_option
@options.json_option
def extend(
    shards: Path | str, n: int, images: Paths, workers: int | None, scheduler: str | None, as_json: bool
) -> None:
    """Add patches to a set until the set has N patches. A build with N patches writes the same set.

    No existing patch changes. If the set has only one shard, the command uses the default shard size, or the size of
    this shard if it is larger.

    Example: patchgen extend shards/ --n 2000000 --image photo.jpg
    """
    folder = require_local(shards, "extend cannot change a set at a URL; build the longer set to another --out")
    options.preload_workers(workers, scheduler)
    from patchgen.pipeline import build  # noqa: PLC0415
    from patchgen.sources.photo import read_photos  # noqa: PLC0415

    photos = read_photos(images)
    with options.building(folder, workers, scheduler) as (_, builders):
        manifest = build.extend(folder, n, photos, workers=builders)
    report_set(manifest, folder, as_json)


@click.command()
@click.argument("data", type=LocalPath())
@options.out_option
@click.option("--size", type=_SIZE, help="Side of a patch in pixels [default: side of the images].")
@options.format_option("the format of the images, or png")
@options.shard_size_option("Images")
@options.workers_option
@click.option("--license", help="License of the images, for the manifest.")
@click.option("--url", help="URL where the images are published, for the manifest.")
@click.option("--attribution", help="Whom to credit for the images, for the manifest.")
@options.json_option
def pack(data: Path, out: Path | str, workers: int | None, as_json: bool, **others: Any) -> None:
    """Write existing images as a patch set.

    Students can train on this set in the same way as on patches of a photo. DATA is a folder with images (also in
    subfolders), with WebDataset tars, or with the files of CIFAR. If all image files are squares of one size and
    format, and --size and --format do not differ, the command copies the files. Otherwise the command scales the
    largest centered square of each image. Labels are not stored. If DATA has training and test images, only the
    training images are packed.

    Example: patchgen pack cifar-10-batches-bin/ --out full/
    """
    card = {key: others.pop(option) for option, key in options.CARD_KEYS.items()}
    options.preload_workers(workers)
    from patchgen.pipeline import pack  # noqa: PLC0415

    with options.building(out, workers) as (folder, _):
        manifest = pack.pack(data, folder, **others, workers=options.cores(workers), card=card)
    if manifest.recipe["fit"] == "centre" and not as_json:
        what = f"all images were encoded again as {manifest.size} px {manifest.encoding.format}"
        say(f"{what}, because not every image had this size and format")
    report_set(manifest, out, as_json)


def _cards(cards: dict[str, tuple[str, ...]], photos: int) -> "list[Card]":
    """Return a card (license, URL, attribution) for each of ``photos`` photos. A single text is for all photos."""
    for option, texts in cards.items():
        if len(texts) not in (0, 1, photos):
            what = f"--{option} was given {counted(len(texts), 'time')} for {counted(photos, 'image')}"
            raise click.UsageError(f"{what}; give it once, or once for each --image.")
    given = {options.CARD_KEYS[option]: texts * photos for option, texts in cards.items() if texts}
    return [{key: texts[k] for key, texts in given.items()} for k in range(photos)]


def build_span(
    plan: "BuildPlan", photos: "list[Photo]", out: Path | str, span: range, workers: int | None, as_json: bool
) -> None:
    """Build only the shards with the numbers in ``span``, and print these shard numbers."""
    from patchgen.pipeline.build import build_part  # noqa: PLC0415

    folder = require_local(out, "--shards cannot build at a URL; build in a shared folder, and upload the folder")
    if span.start >= plan.shards:
        what = f"the set has {counted(plan.shards, 'shard')}, counted from 0 to {plan.shards - 1}"
        raise click.UsageError(f"--shards {span.start}-{span.stop - 1}: {what}; give smaller numbers.")
    span = range(span.start, min(span.stop, plan.shards))
    with options.building(folder, workers):
        build_part(plan, photos, folder, span, workers=options.cores(workers))
    if as_json:
        click.echo(json.dumps({"shards": list(span), "of": plan.shards}))
        return
    built = f"shard {span.start}" if len(span) == 1 else f"shards {span.start} to {span.stop - 1}"
    click.echo(f"{built} of {plan.shards} {'is' if len(span) == 1 else 'are'} built")
    say("next: when all shards are built, run the same command without --shards")


def report_set(manifest: "Manifest", out: Path | str, as_json: bool) -> None:
    """Print the counts and the ``set_id`` of a finished set. Unless ``as_json``, also print a training command."""
    if as_json:
        shown = {"set_id": manifest.set_id, "pixel_root": manifest.pixel_root, "n": manifest.n}
        click.echo(json.dumps(shown | {"shards": len(manifest.shards), "size": manifest.size}))
        return
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    shards = counted(len(manifest.shards), "shard")
    click.echo(f"{counted(manifest.n, 'patch')} of {manifest.size} px in {shards}, {megabytes:,.1f} MB")
    click.echo(f"set_id {manifest.set_id}")
    say(f"next: distill train --shards {shell_word(location_name(out))} --config CONFIG --teacher FILE --eval DATA")
