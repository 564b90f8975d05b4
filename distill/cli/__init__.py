"""The command line of ``distill``: parse, call, print. Heavy imports come inside the commands, after parsing."""

import signal
from types import FrameType
from typing import NoReturn

import click

from distill.cli.checking import configs, convert, evaluate, tables
from distill.cli.launching import logged, only_main_rank_prints, require_single_process
from distill.cli.reporting import report, visualize
from distill.cli.reproducing import reproduce
from distill.cli.stored_logits import make_logits, verify_logits
from distill.cli.training import train, train_teacher
from distill.errors import DistillError
from manifests.errors import PatchSetError
from manifests.support.console import ProgramGroup, run_program


@click.group(cls=ProgramGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="single-image-distillation", prog_name="distill")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train students on frozen patch sets against a teacher."""
    if context.invoked_subcommand not in (train.name, train_teacher.name):
        require_single_process(str(context.invoked_subcommand))


for command in (
    train,
    train_teacher,
    make_logits,
    verify_logits,
    evaluate,
    convert,
    visualize,
    report,
    reproduce,
    configs,
    tables,
):
    if command.callback is not None:
        command.callback = logged(str(command.name), command.callback)
    cli.add_command(command)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point; see ``run_program`` for exit statuses."""
    signal.signal(signal.SIGTERM, _terminate)
    with only_main_rank_prints():
        run_program(cli, "distill", (DistillError, PatchSetError))
