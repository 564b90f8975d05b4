"""The commands ``report`` and ``visualize``, which show the results of runs."""

from pathlib import Path
from typing import Any

import click

from distill.cli.options import FILE, device_option, network_options, parse_numbers
from manifests.support.console import printable, say, shell_word
from manifests.support.numbers import Count


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FILE, metavar="RUN…")
@click.option("--out", type=FILE, help="The page [default: report.html in RUN; required for several runs].")
@click.option("--image", "images", multiple=True, type=FILE, help="A photo for the outlines of patches; repeatable.")
def report(runs: tuple[Path, ...], out: Path | None, images: tuple[Path, ...]) -> None:
    """Write an HTML page about one or several runs.

    RUN is a run directory, or a folder of run directories. The page needs no internet and no other file.

    Example: distill report run/ --image photo.jpg
    """
    from distill.report import write_report  # noqa: PLC0415 - torch is loaded with it

    path, lines = write_report(list(runs), out, list(images))
    for line in lines:
        click.echo(printable(line))
    click.echo(f"report: {path}")


@click.command()
@click.argument("target", type=FILE, metavar="RUN|FILE")
@click.option("--teacher", type=FILE, help="For a run: its teacher's weight file [default: the file in its config].")
@click.option("--out", type=FILE, help="For a weight file: the picture, a PNG [default: neurons.png].")
@click.option("--size", type=Count(8, 1024), default=32, show_default=True, help="For a weight file: pixels a side.")
@network_options
@click.option("--classes", callback=parse_numbers, help="Class numbers: 0,3,7 [default: the first 20].")
@click.option("--steps", type=Count(1, 100_000), default=256, show_default=True, help="Steps for each image.")
@click.option("--seed", type=Count(0, 2**53 - 1), default=0, show_default=True, help="Seed of the initial noise.")
@device_option
def visualize(
    target: Path,
    teacher: Path | None,
    out: Path | None,
    size: int,
    classes: tuple[int, ...] | None,
    steps: int,
    seed: int,
    device: str,
    **network_values: Any,
) -> None:
    """Draw images that maximize a network's logits.

    The command draws an image for each class, starting from noise. The networks are the student and the teacher of a
    run, or the network of a weight file. The next report of the run shows the images.

    Example: distill visualize run/ && distill report run/
    """
    is_run = target.is_dir()
    for name, value in ({"out": out} | network_values if is_run else {}).items():
        if value is not None:
            raise click.UsageError(f"--{name} is only for a weight file, but {target} is a folder; remove --{name}.")
    if teacher is not None and not is_run:
        raise click.UsageError(f"--teacher is only for a run folder, but {target} is not a folder; omit --teacher.")
    from distill.commands.evaluate import load_network  # noqa: PLC0415
    from distill.commands.visualize import ImageOptions, visualize_run, visualize_weights  # noqa: PLC0415
    from distill.report.collect import read_run  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415 - torch takes seconds to import
    from distill.training.patch_sample import photo_option  # noqa: PLC0415

    images = ImageOptions(classes=classes, steps=steps, seed=seed, device=pick_device(device))
    if is_run:
        for path in visualize_run(target, teacher, images):
            click.echo(f"picture: {path}")
        say(f"next: distill report {shell_word(str(target))}{photo_option(read_run(target).manifest)}")
        return
    out = out or Path("neurons.png")
    visualize_weights(load_network(target, device=images.device, **network_values), size, out, images)
    click.echo(f"picture: {out}")
