"""The commands ``train`` and ``train-teacher``, with one seed or several."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.cli.launching import on_ranks
from distill.cli.options import (
    FILE,
    config_option,
    device_option,
    eval_option,
    fetched,
    logits_option,
    require_one_seed,
    resume_option,
    seeds_option,
    set_option,
    shards_option,
    teacher_option,
    with_files,
)
from distill.config import presets
from manifests.support.console import InterruptedProgram, printable, say, shell_word
from manifests.support.counts import counted

if TYPE_CHECKING:
    from distill.runtime.distributed import Ranks

NEXT_OF_TRAIN = "distill visualize {0} && distill report {0}"
NEXT_OF_TRAIN_TEACHER = "distill train --shards SHARDS --config CONFIG --teacher {0}/teacher.safetensors"


@click.command()
@shards_option
@config_option
@teacher_option
@logits_option
@eval_option
@click.option("--out", type=FILE, help="Run directory [default: runs/CONFIG-SET-seedN].")
@seeds_option
@set_option
@resume_option
@device_option
@on_ranks
def train(
    ranks: "Ranks",
    shards: Path | str,
    config_name: str,
    teacher: Path | None,
    teacher_logits: Path | None,
    eval_data: Path | None,
    out: Path | None,
    seeds: tuple[int, ...] | None,
    settings: dict[str, Any],
    resume: bool,
    device: str,
) -> None:
    """Distil a student from a patch set.

    Every shard is verified first. Then the student learns the teacher's logits of each batch.

    Example: distill train --shards shards/ --config fast-cifar --teacher resnet56.safetensors --eval cifar10/
    """
    # torch takes seconds to import, so it comes after parsing: --help and a typing error answer at once.
    from distill.commands.train import check_inputs, known_digests  # noqa: PLC0415
    from distill.commands.train import train as run_train  # noqa: PLC0415
    from distill.config.schema import Config, parse_config  # noqa: PLC0415
    from distill.runtime.context import RunContext  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415
    from distill.training.patch_sample import photo_option  # noqa: PLC0415
    from distill.training.seeds import check_seeds_folder, require_same_identity  # noqa: PLC0415
    from manifests.patchset import open_folder  # noqa: PLC0415

    name, text = presets.read(presets.CONFIGS, config_name)
    settings = with_files(settings, teacher=teacher, logits=teacher_logits, eval_data=eval_data)
    require_one_seed(settings, seeds)

    first = parse_config(text, config_name, settings, Config)
    context = RunContext(device=pick_device(device, ranks), ranks=ranks)

    def check() -> None:
        if seeds is not None and out is not None and ranks.is_main:
            check_seeds_folder(out, resume)
        check_inputs(first, None if seeds is not None else out, context, resume=resume)

    def run(seed: dict[str, Any], folder: Path) -> dict[str, Any]:
        config = parse_config(text, config_name, settings | seed, Config)
        return run_train(config, patches, folder, context, resume=resume)

    with ranks.local_main_first():
        patches = fetched(shards, check)
    manifest = open_folder(patches).manifest
    _run_all(
        run,
        ranks,
        out or Path("runs") / f"{name}-{manifest.set_id[:8]}{_suffix(first.train.seed, seeds)}",
        seeds,
        resume=resume,
        check_origin=lambda folder: require_same_identity(folder, first, lambda: known_digests(first, patches)),
        network=f"student {first.student.arch}",
        prefix="student_",
        next_command=NEXT_OF_TRAIN + photo_option(manifest),
    )


@click.command()
@click.option("--data", required=True, type=FILE, help="Labelled training data.")
@config_option
@eval_option
@click.option("--out", type=FILE, help="Run directory [default: runs/CONFIG-seedN].")
@seeds_option
@set_option
@resume_option
@device_option
@on_ranks
def train_teacher(
    ranks: "Ranks",
    data: Path,
    config_name: str,
    eval_data: Path | None,
    out: Path | None,
    seeds: tuple[int, ...] | None,
    settings: dict[str, Any],
    resume: bool,
    device: str,
) -> None:
    """Train a network on labelled images.

    It can then be the teacher of students, or be compared with them.

    Example: distill train-teacher --data cifar10/ --config teacher-cifar10-resnet56 --eval cifar10/ --out teacher/
    """
    from distill.commands.train_teacher import known_digests  # noqa: PLC0415
    from distill.commands.train_teacher import train_teacher as run_train_teacher  # noqa: PLC0415
    from distill.config.schema import SupervisedConfig, parse_config  # noqa: PLC0415
    from distill.runtime.context import RunContext  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415
    from distill.training.seeds import require_same_identity  # noqa: PLC0415

    name, text = presets.read(presets.CONFIGS, config_name)
    settings = with_files(settings, eval_data=eval_data)
    require_one_seed(settings, seeds)

    first = parse_config(text, config_name, settings, SupervisedConfig)
    context = RunContext(device=pick_device(device, ranks), ranks=ranks)

    def run(seed: dict[str, Any], folder: Path) -> dict[str, Any]:
        config = parse_config(text, config_name, settings | seed, SupervisedConfig)
        return run_train_teacher(config, data, folder, context, resume=resume)

    _run_all(
        run,
        ranks,
        out or Path("runs") / f"{name}{_suffix(first.train.seed, seeds)}",
        seeds,
        resume=resume,
        check_origin=lambda folder: require_same_identity(folder, first, lambda: known_digests(first, data)),
        network=first.network.arch,
        prefix="",
        next_command=NEXT_OF_TRAIN_TEACHER,
    )


def _suffix(seed: int, seeds: tuple[int, ...] | None) -> str:
    return "" if seeds else f"-seed{seed}"


def _run_all(
    run: Callable[[dict[str, Any], Path], dict[str, Any]],
    ranks: "Ranks",
    out: Path,
    seeds: tuple[int, ...] | None,
    *,
    resume: bool,
    check_origin: Callable[[Path], None],
    network: str,
    prefix: str,
    next_command: str,
) -> None:
    """Train with the config's seed, or into a sub-folder for each of ``seeds``; print the results.

    ``run`` trains with further settings into a folder and returns the summary. ``check_origin`` refuses a folder
    whose seeds have no mean with the new ones. ``network`` names the result, and ``prefix`` starts the names of its
    figures. ``next_command`` has a place for the run directory.
    """
    from distill.training.seeds import check_seeds_folder, summarize_seeds  # noqa: PLC0415
    from distill.training.trainer import InterruptedRun  # noqa: PLC0415

    summaries = []
    try:
        if seeds is not None and ranks.is_main:
            check_seeds_folder(out, resume)
            check_origin(out)
        for seed in (None,) if seeds is None else seeds:
            folder = out if seed is None else out / f"seed{seed}"
            summaries.append(run({} if seed is None else {"train.seed": seed}, folder))
            _print_summary(network if seed is None else f"seed {seed}: {network}", prefix, summaries[-1], folder)
            if ranks.is_main:
                _write_page(folder)
    except InterruptedRun as stop:
        raise InterruptedProgram(f"{stop}; run the same command with --resume --out {out} to go on") from stop
    if seeds is None:
        say(f"next: {next_command.format(shell_word(str(out)))}")
    elif ranks.is_main:
        click.echo(summarize_seeds(out, summaries, prefix))
        _write_page(out)


def _write_page(out: Path) -> None:
    """Write the report of a finished run, or of several; a failure is printed and does not fail the run.

    A report that is newer than the result is kept: it may show a photo.
    """
    from distill.errors import DistillError  # noqa: PLC0415
    from distill.report import REPORT_NAME, write_report  # noqa: PLC0415
    from distill.training.run_dir import SUMMARY_NAME  # noqa: PLC0415

    page = out / REPORT_NAME
    try:
        if not page.exists() or page.stat().st_mtime < (out / SUMMARY_NAME).stat().st_mtime:
            write_report([out], None, [])
        say(f"report: {page}")
    except (DistillError, OSError) as error:
        say(f"no report: {printable(str(error))}; once that is put right: distill report {shell_word(str(out))}")


def _print_summary(what: str, prefix: str, summary: dict[str, Any], out: Path) -> None:
    if summary.get(f"{prefix}top1") is not None:
        parts = [f"top-1 {summary[f'{prefix}top1']:.2f} %"]
        if summary.get("agreement") is not None:
            parts += [f"teacher {summary['teacher_top1']:.2f} %", f"agreement {summary['agreement']:.2f} %"]
        click.echo(f"{what}: {', '.join(parts)} ({summary.get('weights', 'last step')})")
    click.echo(
        f"{counted(summary['samples_seen'], 'sample')} in {summary['seconds']:.0f} s, "
        f"{summary['images_per_second']:.0f} images/s; run directory {out}"
    )
