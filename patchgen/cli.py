"""The command line of ``patchgen``: parse, call, print."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from manifests.errors import PatchSetError
from manifests.schema import IMAGE_FORMATS, MAX_PATCHES
from manifests.terminal import InterruptedProgram, run_program
from patchgen.errors import PatchgenError

MAX_SHARD_PATCHES = 100_000
"""A shard's parameters and digests are held in memory while it is built: about 1 KB a patch."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="single-image-distillation", prog_name="patchgen")
def cli() -> None:
    """Frozen, bit-exact sets of augmented patches from a single image."""


@cli.command()
@click.option("--image", required=True, type=click.Path(path_type=Path), help="The photo.")
@click.option("--n", required=True, type=click.IntRange(1, MAX_PATCHES), help="How many patches.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@click.option("--size", default=32, show_default=True, type=click.IntRange(8, 1024), help="Pixels a side.")
@click.option("--recipe", default="asano2023", show_default=True, help="A packaged recipe or a YAML file.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**53 - 1))
@click.option(
    "--format", "image_format", type=click.Choice(IMAGE_FORMATS), help="Image format [default: the recipe's]."
)
@click.option(
    "--shard-size", type=click.IntRange(1, MAX_SHARD_PATCHES), help="Patches a shard [default: by --size]."
)
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes [default: one a core].")
@click.option("--licence", help="Licence of the photo, for the manifest.")
@click.option("--url", help="Where the photo is published, for the manifest.")
@click.option("--attribution", help="Whom to name for the photo, for the manifest.")
def build(
    image: Path,
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
    # The heavy imports come after parsing, so that --help and a mistyped option answer at once.
    from patchgen.build import build as run_build  # noqa: PLC0415
    from patchgen.plan import make_plan  # noqa: PLC0415
    from patchgen.recipe import load_recipe  # noqa: PLC0415
    from patchgen.source import read_photo  # noqa: PLC0415

    photo = read_photo(image)
    plan = make_plan(
        photo=photo,
        recipe=load_recipe(recipe).with_format(image_format),
        n=n,
        size=size,
        seed=seed,
        shard_size=shard_size,
        card=card,
    )
    try:
        manifest = run_build(plan, photo, out, workers=workers or _cores())
    except KeyboardInterrupt as stop:
        raise InterruptedProgram("interrupted; run the same command again to go on") from stop
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    shards = "1 shard" if len(manifest.shards) == 1 else f"{len(manifest.shards)} shards"
    click.echo(f"{manifest.n} patches of {size} px in {shards}, {megabytes:,.1f} MB")
    click.echo(f"set_id {manifest.set_id}")


def _cores() -> int:
    """Cores this process may use, where the system says so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point; see ``run_program`` for exit statuses."""
    signal.signal(signal.SIGTERM, _terminate)
    run_program(cli, "patchgen", (PatchgenError, PatchSetError))
