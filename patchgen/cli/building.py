"""Commands that write a set: ``build``, ``rebuild``, ``extend``, ``pack``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manifests.limits import MAX_PATCHES, ImageFormat
from manifests.remote.cli_location import LocalPath, Location, NameOrPath, location_name, require_local
from manifests.support.console import say, shell_word
from manifests.support.counts import counted
from manifests.support.numbers import Count
from patchgen.cli import options
from patchgen.limits import MAX_SIZE, MIN_SIZE

_SPAN = "Build only shards A-B, counted from 0, while other processes build others; at last run it once without."

if TYPE_CHECKING:
    from manifests import Manifest
    from patchgen.pipeline.plan import Card, PhotoPlan
    from patchgen.sources.photo import Photo


@click.command()
@options.images(required=True, help_text="The photo. If given several times, patches come from all photos equally.")
@click.option("--n", required=True, type=Count(1, MAX_PATCHES), help="How many patches.")
@options.out_option
@click.option("--size", default=32, show_default=True, type=Count(MIN_SIZE, MAX_SIZE), help="Pixels a side.")
@click.option(
    "--recipe", default="asano2023", show_default=True, type=NameOrPath(), help="A packaged recipe or a YAML file."
)
@click.option("--seed", default=0, show_default=True, type=Count(0, 2**53 - 1))
@options.format_option("the recipe's")
@options.shard_size_option("Patches")
@options.workers_option
@options.scheduler_option
@click.option("--shards", "span", type=options.Span(), help=_SPAN)
@click.option("--license", multiple=True, help="License of the photo, for the manifest: once, or for each --image.")
@click.option("--url", multiple=True, help="Where the photo is published: once, or for each --image.")
@click.option("--attribution", multiple=True, help="Whom to credit for the photo: once, or for each --image.")
@options.json_option
def build(
    images: tuple[Path, ...],
    n: int,
    out: Path | str,
    size: int,
    recipe: str,
    seed: int,
    image_format: str | None,
    shard_size: int | None,
    workers: int | None,
    scheduler: str | None,
    span: range | None,
    as_json: bool,
    **cards: tuple[str, ...],
) -> None:
    """Write N patches of a photo as WebDataset shards with a manifest.

    Equal options give equal bytes on any machine. Run the same command again to finish a build that was
    interrupted.

    Example: patchgen build --image photo.jpg --n 50000 --out shards/
    """
    if span is not None and scheduler is not None:
        raise click.UsageError("--shards and --scheduler are two ways to share a build; give one.")
    texts = _cards(cards, len(images))
    options.preload_workers(workers, scheduler)
    from patchgen.pipeline.build import build as run_build  # noqa: PLC0415
    from patchgen.pipeline.plan import make_plan  # noqa: PLC0415
    from patchgen.recipe import load_recipe  # noqa: PLC0415
    from patchgen.sources.photo import read_photos  # noqa: PLC0415

    photos, chosen = read_photos(images), load_recipe(recipe).with_format(image_format)
    plan = make_plan(photos=photos, recipe=chosen, n=n, size=size, seed=seed, shard_size=shard_size, cards=texts)
    if span is not None:
        build_span(plan, photos, out, span, workers, as_json)
        return
    with options.building(out, workers, scheduler, plan.build_id) as (folder, builders):
        manifest = run_build(plan, photos, folder, workers=builders)
    report_set(manifest, out, as_json)
    if plan.recipe.inexact:
        click.echo(
            f"profile fast: {', '.join(plan.recipe.inexact)} of recipe {plan.recipe.name!r} may give other bytes on "
            "another CPU",
            err=True,
        )


@click.command()
@click.option("--manifest", required=True, type=Location(), help="A manifest.json, or a set's folder or URL.")
@options.set_image_option
@options.out_option
@options.workers_option
@options.scheduler_option
@options.json_option
def rebuild(
    manifest: Path | str,
    images: tuple[Path, ...],
    out: Path | str,
    workers: int | None,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Make the set that a manifest describes, byte for byte.

    Every shard is compared with the manifest as soon as it is built; the command ends at the first difference. Run it
    again to go on after an interruption, or in the folder of a damaged set to repair it.

    Example: patchgen rebuild --manifest manifest.json --image photo.jpg --out shards/
    """
    options.preload_workers(workers, scheduler)
    from patchgen.pipeline.build import build as run_build  # noqa: PLC0415
    from patchgen.pipeline.plan import plan_of  # noqa: PLC0415
    from patchgen.pipeline.rebuild import read_manifest  # noqa: PLC0415
    from patchgen.sources.photo import read_photos  # noqa: PLC0415

    expected = read_manifest(manifest)
    photos = read_photos(images)
    plan = plan_of(expected, photos, n=expected.n)
    with options.building(out, workers, scheduler, plan.build_id) as (folder, builders):
        built = run_build(plan, photos, folder, workers=builders, expected=expected)
    report_set(built, out, as_json)
    if built != expected:
        click.echo(
            "every patch and shard is that of the manifest; the Parquet tables differ, because another version of "
            "PyArrow wrote them, which does not change the set_id",
            err=True,
        )


@click.command()
@options.shards_argument
@click.option("--n", required=True, type=Count(1, MAX_PATCHES), help="How many patches in all.")
@options.set_image_option
@options.workers_option
@options.scheduler_option
@options.json_option
def extend(
    shards: Path | str, n: int, images: tuple[Path, ...], workers: int | None, scheduler: str | None, as_json: bool
) -> None:
    """Make a set longer, so that it is the set that a build of N patches writes.

    No patch changes. A set of a single shard is assumed to have the default shard size.

    Example: patchgen extend shards/ --n 2000000 --image photo.jpg
    """
    folder = require_local(
        shards, "extend changes a folder; build the longer set to another --out, its first patches are the same"
    )
    options.preload_workers(workers, scheduler)
    from patchgen.pipeline.rebuild import extend as run_extend  # noqa: PLC0415
    from patchgen.sources.photo import read_photos  # noqa: PLC0415

    photos = read_photos(images)
    with options.building(folder, workers, scheduler) as (_, builders):
        manifest = run_extend(folder, n, photos, workers=builders)
    report_set(manifest, folder, as_json)


@click.command()
@click.argument("data", type=LocalPath())
@options.out_option
@click.option("--size", type=Count(MIN_SIZE, MAX_SIZE), help="Pixels a side [default: the images' own].")
@options.format_option("the images' own, or png")
@options.shard_size_option("Images")
@options.workers_option
@click.option("--license", help="License of the images, for the manifest.")
@click.option("--url", help="Where they are published, for the manifest.")
@click.option("--attribution", help="Whom to credit for them, for the manifest.")
@options.json_option
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
    options.preload_workers(workers)
    from patchgen.pipeline.pack import pack as run_pack  # noqa: PLC0415

    form: Any = {"size": size, "image_format": image_format, "shard_size": shard_size}
    card = {options.CARD_KEYS[option]: text for option, text in card.items()}
    with options.building(out, workers) as (folder, _):
        manifest = run_pack(data, folder, **form, workers=options.cores(workers), card=card)
    if manifest.recipe["fit"] == "centre" and not as_json:
        say(f"encoded again as {manifest.size} px {manifest.encoding.format}: not every image is such a file")
    report_set(manifest, out, as_json)


def _cards(cards: dict[str, tuple[str, ...]], photos: int) -> "list[Card]":
    """Return the card texts of each photo: an option given once holds for all photos."""
    for option, texts in cards.items():
        if len(texts) not in (0, 1, photos):
            raise click.UsageError(
                f"--{option} given {counted(len(texts), 'time')} for {counted(photos, 'image')}; "
                "give it once or for each."
            )
    given = {options.CARD_KEYS[option]: texts * photos for option, texts in cards.items() if texts}
    return [{key: texts[k] for key, texts in given.items()} for k in range(photos)]


def build_span(
    plan: "PhotoPlan", photos: "list[Photo]", out: Path | str, span: range, workers: int | None, as_json: bool
) -> None:
    """Build some of a set's shards, and print which."""
    from patchgen.pipeline.build import build_part  # noqa: PLC0415

    folder = require_local(out, "--shards: the processes share a folder; build there, then upload the folder")
    if span.start >= plan.shards:
        raise click.UsageError(f"--shards {span.start}-{span.stop - 1}: the set has {plan.shards}, counted from 0.")
    span = range(span.start, min(span.stop, plan.shards))
    with options.building(folder, workers):
        build_part(plan, photos, folder, span, workers=options.cores(workers))
    if as_json:
        click.echo(json.dumps({"shards": list(span), "of": plan.shards}))
        return
    built = f"shard {span.start}" if len(span) == 1 else f"shards {span.start} to {span.stop - 1}"
    click.echo(f"{built} of {plan.shards} {'is' if len(span) == 1 else 'are'} there")
    say("next: when all are, the same command without --shards")


def report_set(manifest: "Manifest", out: Path | str, as_json: bool) -> None:
    """Print what was written, and the command to use it."""
    if as_json:
        shown = {"set_id": manifest.set_id, "pixel_root": manifest.pixel_root, "n": manifest.n}
        click.echo(json.dumps(shown | {"shards": len(manifest.shards), "size": manifest.size}))
        return
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    shards = counted(len(manifest.shards), "shard")
    click.echo(f"{counted(manifest.n, 'patch')} of {manifest.size} px in {shards}, {megabytes:,.1f} MB")
    click.echo(f"set_id {manifest.set_id}")
    say(f"next: distill train --shards {shell_word(location_name(out))} --config CONFIG --teacher FILE --eval DATA")
