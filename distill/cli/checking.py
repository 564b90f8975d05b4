"""The commands ``eval``, ``convert``, ``configs`` and ``tables``."""

import json
from pathlib import Path

import click

from distill.cli.options import FILE, arch_option, device_option, json_option, mean_option, std_option
from distill.config import presets
from manifests.support.console import printable, say, shell_word
from manifests.support.counts import counted
from manifests.support.numbers import Count


@click.command("eval")
@click.option("--weights", "path", required=True, type=FILE, help="A weight file.")
@arch_option
@click.option("--data", required=True, type=FILE, help="Labelled test data.")
@click.option("--teacher", type=FILE, help="A teacher's weight file, to be compared with.")
@mean_option
@std_option
@click.option("--size", type=Count(8, 1024), help="Resize and centre-crop images to this.")
@click.option("--per-class", is_flag=True, help="Print a line a class.")
@json_option
@device_option
def evaluate(
    path: Path,
    arch: str | None,
    data: Path,
    teacher: Path | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    size: int | None,
    per_class: bool,
    as_json: bool,
    device: str,
) -> None:
    """Measure a network on labelled images.

    Prints top-1 and top-5; with --per-class top-1 of each class, with --teacher the agreement with it.

    Example: distill eval --weights runs/r/student.safetensors --data cifar10/ --teacher resnet56.safetensors
    """
    # torch takes seconds to import, so it comes after parsing: --help and a typing error answer at once.
    from distill.commands.evaluate import evaluate as run_evaluate  # noqa: PLC0415
    from distill.commands.evaluate import load_network  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415

    picked = pick_device(device)
    network = load_network(path, arch, mean, std, picked)
    other = None if teacher is None else load_network(teacher, None, None, None, picked)
    result = run_evaluate(network, data, size, other, picked)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(printable("{arch}: top-1 {top1:.2f} %, top-5 {top5:.2f} % on {found}".format(**result)))
    if teacher is not None:
        line = "teacher: top-1 {teacher_top1:.2f} %, agreement {agreement:.2f} %, KL from it {kl_to_teacher:.4f} nats"
        click.echo(line.format(**result))
    if per_class:
        names = result["classes"] or [f"class {number:4d}" for number in range(len(result["per_class"]))]
        for name, top1 in zip(names, result["per_class"], strict=True):
            click.echo(printable(f"{name}: ") + ("no images" if top1 is None else f"top-1 {top1:6.2f} %"))


@click.command()
@click.argument("path", type=FILE, metavar="FILE")
@arch_option
@mean_option
@std_option
@click.option("--bn-eps", type=click.FloatRange(0, 1, min_open=True), help="Of its batch norms, if unusual.")
@click.option("--out", required=True, type=FILE, help="The new file, .safetensors.")
def convert(
    path: Path,
    arch: str | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    bn_eps: float | None,
    out: Path,
) -> None:
    """Convert a checkpoint of another repository to a weight file that says what it holds.

    Such a checkpoint names neither its network nor the normalization of its input. The copy does, and has our names
    of the parameters.

    Example: distill convert wrn.pth --arch wrn-40-2 --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26 --out wrn.safetensors
    """
    from distill.commands.convert import convert as run_convert  # noqa: PLC0415 - torch takes seconds to import

    network = run_convert(path, out, arch, mean, std, bn_eps)
    mean_text, std_text = (",".join(map(str, triple)) for triple in (network.mean, network.std))
    click.echo(f"{out}: {network.arch}, {counted(network.num_classes, 'class')}, mean {mean_text}, std {std_text}")
    say(f"next: distill eval --weights {shell_word(str(out))} --data DATA")


@click.command()
@click.argument("name", required=False)
@click.option("--keys", type=click.Choice(["train", "train-teacher"]), help="List the keys of a command's configs.")
def configs(name: str | None, keys: str | None) -> None:
    """List the packaged configs, or print the one called NAME.

    Example: distill configs fast-cifar > mine.yaml
    """
    if keys is None:
        _list_or_print(presets.CONFIGS, name)
        return
    from distill.config.reference import describe_keys  # noqa: PLC0415
    from distill.config.schema import Config, SupervisedConfig  # noqa: PLC0415

    click.echo(describe_keys(Config if keys == "train" else SupervisedConfig))


@click.command()
@click.argument("name", required=False)
def tables(name: str | None) -> None:
    """List the packaged tables, or print the one called NAME.

    Example: distill tables main > mine.yaml
    """
    _list_or_print(presets.TABLES, name)


def _list_or_print(folder: str, name: str | None) -> None:
    if name is not None:
        click.echo(presets.text(folder, name), nl=False)
        return
    for each in presets.names(folder):
        click.echo(f"{each:28}{presets.headline(folder, each)}")
