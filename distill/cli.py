"""The command line of ``distill``: parse, call, print."""

import json
from pathlib import Path
from typing import Any

import click

from distill.errors import DistillError
from manifests.errors import PatchSetError
from manifests.faults import parse_yaml
from manifests.terminal import InterruptedProgram, run_program

FILE = click.Path(path_type=Path)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="single-image-distillation", prog_name="distill")
def cli() -> None:
    """Train students on frozen patch sets against a teacher."""


def _parse_sets(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r}: expected KEY=VALUE, such as optim.lr=0.001")
        try:
            settings[key.strip()] = parse_yaml(text)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}") from error
    return settings


@cli.command()
@click.option("--shards", required=True, type=FILE, help="Folder of a patch set.")
@click.option("--config", "config_name", required=True, help="A YAML file or a packaged config.")
@click.option("--teacher", type=FILE, help="The teacher's weight file; sets teacher.weights.")
@click.option("--eval", "eval_data", type=FILE, help="Labelled test data; sets eval.data.")
@click.option("--out", type=FILE, help="Run directory [default: runs/CONFIG-SET-seedN].")
@click.option("--set", "settings", multiple=True, callback=_parse_sets, help="Override a key: optim.lr=0.001.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, if it has begun.")
@device_option
def train(
    shards: Path,
    config_name: str,
    teacher: Path | None,
    eval_data: Path | None,
    out: Path | None,
    settings: dict[str, Any],
    resume: bool,
    device: str,
) -> None:
    """Distil a student from a patch set: every shard is verified, then the teacher labels each batch.

    Example: distill train --shards shards/ --config resnet20 --teacher resnet56.safetensors --eval cifar10/
    """
    # torch takes seconds to import, so it comes after parsing: --help and a typing error answer at once.
    from distill.config import parse_config, read_config  # noqa: PLC0415
    from distill.run import pick_device  # noqa: PLC0415
    from distill.run import train as run_train  # noqa: PLC0415
    from distill.session import InterruptedRun  # noqa: PLC0415

    name, text = read_config(config_name)
    if teacher is not None:
        settings["teacher.weights"] = teacher
    if eval_data is not None:
        settings["eval.data"] = eval_data
    config = parse_config(text, name, settings)
    if out is None:
        out = Path("runs") / f"{name}-{_short_id(shards)}-seed{config.train.seed}"
    try:
        summary = run_train(config, shards, out, resume=resume, device=pick_device(device), say=click.echo)
    except InterruptedRun as stop:
        raise InterruptedProgram(f"{stop}; run the same command with --resume --out {out} to go on") from stop
    _print_summary(config.student.arch, summary, out)


def _short_id(shards: Path) -> str:
    from manifests import open_patchset  # noqa: PLC0415

    return open_patchset(shards).manifest.set_id[:8]


def _print_summary(arch: str, summary: dict[str, Any], out: Path) -> None:
    if summary["student_top1"] is not None:
        click.echo(
            f"student {arch}: top-1 {summary['student_top1']:.2f} %, teacher {summary['teacher_top1']:.2f} %, "
            f"agreement {summary['agreement']:.2f} %"
        )
    click.echo(
        f"{summary['samples_seen']} samples in {summary['seconds']:.0f} s, "
        f"{summary['images_per_second']:.0f} images/s; run directory {out}"
    )


def _parse_triple(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, float, float] | None:
    if value is None:
        return None
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("expected three numbers with commas, such as 0.485,0.456,0.406") from error
    return red, green, blue


@cli.command("eval")
@click.option("--weights", "path", required=True, type=FILE, help="A weight file.")
@click.option("--arch", help="Network name [default: the weight file's].")
@click.option("--data", required=True, type=FILE, help="Labelled test data.")
@click.option("--mean", callback=_parse_triple, help="R,G,B of the input in [0, 1] [default: the file's].")
@click.option("--std", callback=_parse_triple, help="R,G,B of the input in [0, 1] [default: the file's].")
@click.option("--size", type=click.IntRange(8, 1024), help="Resize and centre-crop images to this.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@device_option
def evaluate(
    path: Path,
    arch: str | None,
    data: Path,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    size: int | None,
    as_json: bool,
    device: str,
) -> None:
    """Measure a network's top-1 on labelled images.

    Example: distill eval --weights runs/r/student.safetensors --arch resnet20 --data cifar10/
    """
    from distill.judge import evaluate_weights  # noqa: PLC0415
    from distill.run import pick_device  # noqa: PLC0415

    result = evaluate_weights(path, arch, data, mean=mean, std=std, size=size, device=pick_device(device))
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{result['arch']}: top-1 {result['top1']:.2f} % on {result['images']} images")


@cli.command()
@click.argument("name", required=False)
def configs(name: str | None) -> None:
    """List the packaged configs, or print the one called NAME."""
    from distill.config import packaged_configs, packaged_text  # noqa: PLC0415

    if name is None:
        for each in packaged_configs():
            click.echo(each)
    else:
        click.echo(packaged_text(name), nl=False)


def main() -> None:
    """Entry point; see ``run_program`` for exit statuses."""
    run_program(cli, "distill", (DistillError, PatchSetError))
