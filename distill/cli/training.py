"""Commands that train: ``train`` and ``teacher``, with one seed or several."""

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

FOLLOWS_TRAIN = "distill visualize {0} && distill report {0}"
FOLLOWS_TEACHER = "distill train --shards SHARDS --config CONFIG --teacher {0}/teacher.safetensors"


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

    Every shard is verified first; then the teacher says what it sees in each batch, and the student learns it.

    Example: distill train --shards shards/ --config fast-cifar --teacher resnet56.safetensors --eval cifar10/
    """
    # torch takes seconds to import, so it comes after parsing: --help and a typing error answer at once.
    from distill.commands.train import check_inputs, known_digests  # noqa: PLC0415
    from distill.commands.train import train as run_train  # noqa: PLC0415
    from distill.config.schema import Config, parse_config  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415
    from distill.training.patch_sample import photo_option  # noqa: PLC0415
    from distill.training.seeds import check_seeds_folder, require_same_identity  # noqa: PLC0415
    from manifests.patchset import open_folder  # noqa: PLC0415

    name, text = presets.read(presets.CONFIGS, config_name)
    settings = with_files(settings, teacher=teacher, logits=teacher_logits, eval_data=eval_data)
    require_one_seed(settings, seeds)

    def run(seed: dict[str, Any], folder: Path) -> dict[str, Any]:
        config = parse_config(text, config_name, settings | seed, Config)
        picked = pick_device(device, ranks)
        return run_train(config, patches, folder, resume=resume, device=picked, say=say, ranks=ranks)

    def check() -> None:
        pick_device(device, ranks)
        if seeds is not None and out is not None and ranks.first:
            check_seeds_folder(out, resume)
        check_inputs(first, None if seeds is not None else out, resume=resume, ranks=ranks)

    first = parse_config(text, config_name, settings, Config)
    with ranks.in_turn():
        patches = fetched(shards, check)
    stem = f"{name}-{_short_id(patches)}" if out is None else ""
    _run_all(
        ranks,
        run,
        out,
        stem,
        seeds,
        first.train.seed,
        f"student {first.student.arch}",
        "student_",
        FOLLOWS_TRAIN + photo_option(open_folder(patches).manifest),
        lambda folder: require_same_identity(folder, first, known_digests(first, patches)),
        resume=resume,
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

    It can teach students then, or be compared with them.

    Example: distill train-teacher --data cifar10/ --config teacher-cifar10-resnet56 --eval cifar10/ --out teacher/
    """
    from distill.commands.train_teacher import known_digests, teach  # noqa: PLC0415
    from distill.config.schema import SupervisedConfig, parse_config  # noqa: PLC0415
    from distill.runtime.device import pick_device  # noqa: PLC0415
    from distill.training.seeds import require_same_identity  # noqa: PLC0415

    name, text = presets.read(presets.CONFIGS, config_name)
    settings = with_files(settings, eval_data=eval_data)
    require_one_seed(settings, seeds)

    def run(seed: dict[str, Any], folder: Path) -> dict[str, Any]:
        config = parse_config(text, config_name, settings | seed, SupervisedConfig)
        picked = pick_device(device, ranks)
        return teach(config, data, folder, resume=resume, device=picked, say=say, ranks=ranks)

    first = parse_config(text, config_name, settings, SupervisedConfig)
    _run_all(
        ranks,
        run,
        out,
        name,
        seeds,
        first.train.seed,
        first.network.arch,
        "",
        FOLLOWS_TEACHER,
        lambda folder: require_same_identity(folder, first, known_digests(first, data)),
        resume=resume,
    )


def _run_all(
    ranks: "Ranks",
    run: Callable[[dict[str, Any], Path], dict[str, Any]],
    out: Path | None,
    stem: str,
    seeds: tuple[int, ...] | None,
    seed: int,
    what: str,
    prefix: str,
    following: str,
    check_origin: Callable[[Path], None],
    *,
    resume: bool,
) -> None:
    """Run once with the config's ``seed``, or into a sub-folder for each of ``seeds``; the first rank prints results.

    ``following`` is the command that may follow, with a place for the run directory; ``check_origin`` refuses a
    folder whose seeds have no mean with those to come.
    """
    from distill.training.seeds import check_seeds_folder, summarize_seeds  # noqa: PLC0415
    from distill.training.session import InterruptedRun  # noqa: PLC0415

    if out is None:
        out = Path("runs") / (stem if seeds else f"{stem}-seed{seed}")
    try:
        if seeds is None:
            _print_summary(what, prefix, run({}, out), out)
            if ranks.first:
                _write_page(out)
            say(f"next: {following.format(shell_word(str(out)))}")
            return
        if ranks.first:
            check_seeds_folder(out, resume)
            check_origin(out)
        summaries = []
        for each in seeds:
            folder = out / f"seed{each}"
            summaries.append(run({"train.seed": each}, folder))
            _print_summary(f"seed {each}: {what}", prefix, summaries[-1], folder)
            if ranks.first:
                _write_page(folder)
    except InterruptedRun as stop:
        raise InterruptedProgram(f"{stop}; run the same command with --resume --out {out} to go on") from stop
    if ranks.first:
        click.echo(summarize_seeds(out, summaries, prefix))
        _write_page(out)


def _write_page(out: Path) -> None:
    """The page of a run that has ended, or of several; the run is good also where its page cannot be made.

    A page that is younger than the result stays: it may have been made with a photo.
    """
    from distill.errors import DistillError  # noqa: PLC0415
    from distill.report import REPORT_NAME, write_report  # noqa: PLC0415
    from distill.training.session import SUMMARY_NAME  # noqa: PLC0415

    page = out / REPORT_NAME
    try:
        if not page.exists() or page.stat().st_mtime < (out / SUMMARY_NAME).stat().st_mtime:
            write_report([out], None, [])
        say(f"report: {page}")
    except (DistillError, OSError) as error:
        say(f"no report: {printable(str(error))}; once that is put right: distill report {shell_word(str(out))}")


def _short_id(shards: Path) -> str:
    from manifests.patchset import open_folder  # noqa: PLC0415

    return open_folder(shards).manifest.set_id[:8]


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
