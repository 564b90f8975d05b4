"""The commands ``report`` and ``visualize``, which show the results of runs."""

from pathlib import Path

import click

from distill.cli.options import FILE, arch_option, device_option, mean_option, std_option
from distill.cli.options import parse_seeds as parse_numbers
from manifests.support.console import printable, say, shell_word
from manifests.support.numbers import Count


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FILE, metavar="RUN…")
@click.option("--out", type=FILE, help="The page [default: report.html in RUN; needed with several].")
@click.option("--image", "images", multiple=True, type=FILE, help="A photo, to show where patches lie; repeatable.")
def report(runs: tuple[Path, ...], out: Path | None, images: tuple[Path, ...]) -> None:
    """Write a page of one run, or of several side by side.

    A folder of several seeds stands for its runs. The page needs no network and no other file.

    Example: distill report run/ --image photo.jpg
    """
    from distill.report import write_report  # noqa: PLC0415 - torch is loaded with it

    written = write_report(list(runs), out, list(images))
    for line in written.lines:
        click.echo(printable(line))
    click.echo(f"report: {written.path}")


@click.command()
@click.argument("target", type=FILE, metavar="RUN|FILE")
@click.option("--teacher", type=FILE, help="With a run: its teacher's file [default: where its config says].")
@click.option("--out", type=FILE, help="With a weight file: the picture, a PNG [default: neurons.png].")
@click.option("--size", type=Count(8, 1024), default=32, show_default=True, help="With a weight file: pixels.")
@arch_option
@mean_option
@std_option
@click.option("--classes", callback=parse_numbers, help="Class numbers: 0,3,7 [default: the first 20].")
@click.option("--steps", type=Count(1, 100_000), default=256, show_default=True, help="Steps of each image.")
@click.option("--seed", type=Count(0, 2**53 - 1), default=0, show_default=True, help="Of the first noise.")
@device_option
def visualize(
    target: Path,
    teacher: Path | None,
    out: Path | None,
    size: int,
    arch: str | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    classes: tuple[int, ...] | None,
    steps: int,
    seed: int,
    device: str,
) -> None:
    """Make images that maximize the logits of a network's classes.

    The networks are a run's student and teacher, or the one in a weight file. Each image starts from noise. Images in
    a run directory are shown by the next report.

    Example: distill visualize run/ && distill report run/
    """
    is_run = target.is_dir()
    given = {"--out": out, "--arch": arch, "--mean": mean, "--std": std} if is_run else {}
    if wrong := [name for name, value in given.items() if value is not None]:
        raise click.UsageError(f"{wrong[0]} goes with a weight file, {target} is a folder.")
    if teacher is not None and not is_run:
        raise click.UsageError(f"--teacher goes with a run directory, {target} is none.")
    from distill.commands.evaluate import load_network  # noqa: PLC0415
    from distill.commands.visualize import ImageOptions, visualize_run, visualize_weights  # noqa: PLC0415
    from distill.report.collect import read_run  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415 - torch takes seconds to import
    from distill.training.patch_sample import photo_option  # noqa: PLC0415

    chosen = list(classes) if classes else None
    options = ImageOptions(classes=chosen, steps=steps, seed=seed, device=pick_device(device))
    if is_run:
        for path in visualize_run(target, teacher, options):
            click.echo(f"picture: {path}")
        say(f"next: distill report {shell_word(str(target))}{photo_option(read_run(target).manifest)}")
        return
    out = out or Path("neurons.png")
    visualize_weights(load_network(target, arch, mean, std, options.device), size, out, options)
    click.echo(f"picture: {out}")
