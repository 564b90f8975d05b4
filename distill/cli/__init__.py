"""The command line of ``distill``: parse, call, print. Commands import large libraries after parsing."""

import signal

import click

from distill.cli.checking import configs, convert, evaluate, tables
from distill.cli.launching import logged, only_main_rank_prints
from distill.cli.reporting import report, visualize
from distill.cli.reproducing import reproduce
from distill.cli.stored_logits import make_logits, verify_logits
from distill.cli.training import train, train_teacher
from distill.errors import DistillError
from distill.runtime.torchrun_env import launched
from manifests.errors import PatchSetError
from manifests.support.console import ProgramGroup, run_program


@click.group(cls=ProgramGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="single-image-distillation", prog_name="distill")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train students on frozen patch sets against a teacher."""
    command = context.invoked_subcommand
    if command not in (train.name, train_teacher.name) and launched():
        raise DistillError(f"{command}: this command runs in one process, not in several; start it without torchrun")


TRAINING = (train, train_teacher, make_logits, verify_logits)
for command in (*TRAINING, evaluate, convert, visualize, report, reproduce, configs, tables):
    if command.callback is not None:
        command.callback = logged(str(command.name), command.callback)
    cli.add_command(command)


def main() -> None:
    """Run the program ``distill``; see ``run_program`` for exit statuses."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    with only_main_rank_prints():
        run_program(cli, "distill", (DistillError, PatchSetError))
