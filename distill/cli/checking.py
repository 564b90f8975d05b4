"""The commands ``eval``, ``convert``, ``configs`` and ``tables``."""

import json
from pathlib import Path
from typing import Any

import click

from distill.cli.options import FILE, device_option, json_option, network_options
from distill.config import presets
from manifests.support.console import printable, say, shell_word
from manifests.support.counts import counted
from manifests.support.numbers import Count


@click.command("eval")
@click.option(
    "--weights",
    "path",
    required=True,
    type=FILE,
    help="A weight file, or pretrained: the published weights of --arch.",
)
@click.option("--data", required=True, type=FILE, help="Labelled test data.")
@click.option("--teacher", type=FILE, help="A teacher's weight file, to compare the network with.")
@network_options
@click.option("--size", type=Count(8, 1024), help="Resize and center-crop images to this size in pixels.")
@click.option("--transform", help="Resize and crop: torchvision, timm, or '{resize: 256, crop: 224}'.")
@click.option("--per-class", is_flag=True, help="Print a line for each class.")
@json_option
@device_option
def evaluate(
    path: Path,
    data: Path,
    teacher: Path | None,
    size: int | None,
    transform: str | None,
    per_class: bool,
    as_json: bool,
    device: str,
    **own: Any,
) -> None:
    """Measure a network on labelled images.

    The command prints top-1 and top-5. --per-class adds the top-1 of each class. --teacher adds the top-1 of the
    teacher, and how often network and teacher predict the same class.

    Example: distill eval --weights runs/r/student.safetensors --data cifar10/ --teacher resnet56.safetensors
    """
    # torch takes seconds to import, so it is imported after parsing: --help and a usage error appear at once.
    from distill.commands.evaluate import evaluate as run_evaluate  # noqa: PLC0415
    from distill.commands.evaluate import load_network  # noqa: PLC0415
    from distill.data.fit import read_transform  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415

    if size is not None and transform is not None:
        raise click.UsageError("--size and --transform are both given; give only one of them.")
    picked = pick_device(device)
    network = load_network(path, device=picked, **own)
    other = None if teacher is None else load_network(teacher, None, None, None, picked)
    fit = None if transform is None else read_transform(transform, "--transform").fit(network.arch, "--transform")
    result = run_evaluate(network, data, fit or size, other, picked)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(printable("{arch}: top-1 {top1:.2f} %, top-5 {top5:.2f} % on {found}".format(**result)))
    if teacher is not None:
        line = "teacher: top-1 {teacher_top1:.2f} %, agreement {agreement:.2f} %, KL {kl_to_teacher:.4f} nats"
        click.echo(line.format(**result))
    if per_class:
        names = result["classes"] or [f"class {number:4d}" for number in range(len(result["per_class"]))]
        for name, top1 in zip(names, result["per_class"], strict=True):
            click.echo(printable(f"{name}: ") + ("no images" if top1 is None else f"top-1 {top1:6.2f} %"))


@click.command()
@click.argument("path", type=FILE, metavar="FILE")
@network_options
@click.option("--bn-eps", type=click.FloatRange(0, 1, min_open=True), help="Epsilon of batch norms, if unusual.")
@click.option("--out", required=True, type=FILE, help="The new file, .safetensors.")
def convert(path: Path, bn_eps: float | None, out: Path, **network_values: Any) -> None:
    """Convert a checkpoint of another repository.

    The new file contains the parameters under the names that distill uses. The file also contains the name of the
    network, and the mean and std of the input images.

    Example: distill convert wrn.pth --arch wrn-40-2 --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26 --out wrn.safetensors
    """
    from distill.commands.convert import convert as run_convert  # noqa: PLC0415 - torch takes seconds to import

    network = run_convert(path, out, bn_eps=bn_eps, **network_values)
    mean, std = (",".join(map(str, triple)) for triple in (network.mean, network.std))
    click.echo(f"{out}: {network.arch}, {counted(network.num_classes, 'class')}, mean {mean}, std {std}")
    say(f"next: distill eval --weights {shell_word(str(out))} --data DATA")


@click.command()
@click.argument("name", required=False)
@click.option("--keys", type=click.Choice(["train", "train-teacher"]), help="List the keys of a command's configs.")
def configs(name: str | None, keys: str | None) -> None:
    """List the packaged configs, or print the config NAME.

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
    """List the packaged tables, or print the table NAME.

    Example: distill tables main > mine.yaml
    """
    _list_or_print(presets.TABLES, name)


def _list_or_print(folder: str, name: str | None) -> None:
    if name is not None:
        click.echo(presets.text(folder, name), nl=False)
        return
    for each in presets.files(folder):
        click.echo(f"{each:28}{presets.headline(folder, each)}")
