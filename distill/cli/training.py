"""The commands ``train`` and ``train-teacher``, with one seed or several."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from distill.cli import options
from manifests.support.console import InterruptedProgram, say, shell_word
from manifests.support.counts import counted

if TYPE_CHECKING:
    from distill.config.schema import Config, SupervisedConfig
    from distill.runtime.distributed import Ranks
    from distill.training.run import Task

C = TypeVar("C", "Config", "SupervisedConfig")
LOGGERS = ("tensorboard", "wandb", "mlflow")

run_options = options.join(
    options.eval_option,
    click.option("--seeds", callback=options.parse_numbers, help="One run for each seed: 0,1,2; sets train.seed."),
    click.option("--resume", is_flag=True, help="Continue the run in --out if it has begun."),
    # not --log: torchrun takes this for an abbreviation of its own --log-dir
    click.option("--logger", "logs", multiple=True, type=click.Choice(LOGGERS), help="Also log the figures there."),
)


@click.command()
@options.distillation_options
@click.option("--teacher-logits", type=options.FILE, help="Output of distill make-logits; sets teacher.logits.")
@click.option("--out", type=options.FILE, help="Run directory [default: runs/CONFIG-SET-seedN].")
@run_options
def train(shards: Path | str, teacher: Path | None, teacher_logits: Path | None, **values: Any) -> None:
    """Distill a student from a patch set.

    The shards, or their decoded copy in the cache, are verified first. Then the student learns the teacher's logits.

    Example: distill train --shards shards/ --config fast-cifar --teacher resnet56.safetensors --eval cifar10/
    """
    # torch takes seconds to import, so it is imported after parsing: --help and a usage error appear at once.
    from distill.commands.train import Distillation, check_inputs  # noqa: PLC0415
    from distill.config.schema import Config  # noqa: PLC0415
    from distill.runtime.distributed import joined  # noqa: PLC0415
    from distill.training.patch_sample import photo_option  # noqa: PLC0415
    from manifests.patchset import open_folder  # noqa: PLC0415

    files = {"teacher.weights": teacher, "teacher.logits": teacher_logits}
    with joined() as ranks:
        runs = _Runs(Config, ranks, files, values)
        with ranks.local_main_first():
            folder = options.download(shards, lambda: check_inputs(runs.config))
        manifest = open_folder(folder).manifest
        runs.execute(
            functools.partial(Distillation, shards=folder, context=runs.context),
            default_name=f"{runs.name}-{manifest.set_id[:8]}",
            network=f"student {runs.config.student.arch}",
            prefix=Distillation.prefix,
            next_command="distill visualize {0} && distill report {0}" + photo_option(manifest),
        )


@click.command()
@click.option("--data", required=True, type=options.FILE, help="Labelled training data.")
@options.config_options
@click.option("--out", type=options.FILE, help="Run directory [default: runs/CONFIG-seedN].")
@run_options
def train_teacher(data: Path, **values: Any) -> None:
    """Train a network on labelled images.

    The network can then be the teacher of students, or be compared with students.

    Example: distill train-teacher --data cifar10/ --config teacher-cifar10-resnet56 --eval cifar10/ --out teacher/
    """
    from distill.commands.train_teacher import SupervisedTraining  # noqa: PLC0415
    from distill.config.schema import SupervisedConfig  # noqa: PLC0415
    from distill.runtime.distributed import joined  # noqa: PLC0415

    with joined() as ranks:
        runs = _Runs(SupervisedConfig, ranks, {}, values)
        runs.execute(
            functools.partial(SupervisedTraining, data=data, context=runs.context),
            default_name=runs.name,
            network=runs.config.network.arch,
            prefix=SupervisedTraining.prefix,
            next_command="distill train --shards SHARDS --config CONFIG --teacher {0}/teacher.safetensors",
        )


class _Runs(Generic[C]):
    """The runs of one command: one run with the seed of the config, or one run for each seed of ``--seeds``."""

    config: C

    def __init__(self, model: type[C], ranks: "Ranks", files: dict[str, Any], values: dict[str, Any]) -> None:
        """Parse the config, and check ``--out`` if it is given. ``files`` maps config keys to paths or None."""
        self.out: Path | None = values["out"]
        self.seeds: tuple[int, ...] | None = values["seeds"]
        self.resume: bool = values["resume"]
        self.logs: tuple[str, ...] = values["logs"]
        if self.seeds is not None and "train.seed" in values["settings"]:
            raise click.UsageError("--set train.seed and --seeds are both given; give only one of them.")
        files = files | values["eval_data"]
        self.name, self.config, self.context = options.parse_run(model, files, values, ranks)
        if self.out is not None:
            self._check_folder(self.out)

    def _check_folder(self, out: Path) -> None:
        from distill.training.run_dir import check_folder  # noqa: PLC0415

        if self.context.ranks.is_main:
            check_folder(out, self.resume, several=self.seeds is not None)

    def execute(
        self, open_task: Callable[[C], "Task"], *, default_name: str, network: str, prefix: str, next_command: str
    ) -> None:
        """Train every run. Print the results with the label ``network``. ``open_task`` returns the task for a config.

        ``prefix`` begins the names of accuracies in a summary. ``next_command`` is a printed hint, in which the run
        directory replaces ``{0}``. ``default_name`` begins the name of the run directory if --out is not given.
        """
        from distill.loggers import make_loggers  # noqa: PLC0415
        from distill.training.run import run  # noqa: PLC0415
        from distill.training.seeds import summarize_seeds  # noqa: PLC0415
        from distill.training.trainer import InterruptedRun  # noqa: PLC0415

        config, seeds, is_main = self.config, self.seeds, self.context.ranks.is_main
        loggers = make_loggers(self.logs)
        out = self.out or Path("runs") / (default_name + ("" if seeds else f"-seed{config.train.seed}"))
        runs = {out: config}
        if seeds is not None:
            trains = {seed: config.train.model_copy(update={"seed": seed}) for seed in seeds}
            runs = {out / f"seed{seed}": config.model_copy(update={"train": train}) for seed, train in trains.items()}
        summaries = []
        try:
            self._check_folder(out)
            for folder, own in runs.items():
                open_own = functools.partial(open_task, own)
                several = () if seeds is None else tuple(runs)
                summaries.append(
                    run(open_own, folder, self.context, resume=self.resume, several=several, callbacks=loggers)
                )
                what = network if seeds is None else f"seed {own.train.seed}: {network}"
                _print_summary(what, prefix, summaries[-1], folder)
                if is_main:
                    _write_page(folder)
        except InterruptedRun as stop:
            advice = f"run the same command with --resume --out {out} to continue"
            raise InterruptedProgram(f"{stop}; {advice}") from stop
        if seeds is None:
            say(f"next: {next_command.format(shell_word(str(out)))}")
        elif is_main:
            click.echo(summarize_seeds(out, summaries, prefix))
            _write_page(out)


def _write_page(out: Path) -> None:
    from distill.report import refresh_report  # noqa: PLC0415

    say(refresh_report(out))


def _print_summary(what: str, prefix: str, summary: dict[str, Any], out: Path) -> None:
    if summary.get(f"{prefix}top1") is not None:
        parts = [f"top-1 {summary[f'{prefix}top1']:.2f} %"]
        if summary.get("agreement") is not None:
            parts += [f"teacher {summary['teacher_top1']:.2f} %", f"agreement {summary['agreement']:.2f} %"]
        click.echo(f"{what}: {', '.join(parts)} ({summary.get('weights', 'last step')})")
    for name, figures in summary.get("evaluations", {}).items():
        click.echo(f"{name}: top-1 {figures[f'{prefix}top1']:.2f} % on {counted(figures['eval_images'], 'image')}")
    speed = f"{summary['seconds']:.0f} s, {summary['images_per_second']:.0f} images/s"
    click.echo(f"{counted(summary['samples_seen'], 'sample')} in {speed}; run directory {out}")
