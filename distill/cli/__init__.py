"""The command line of ``distill``. A command parses its options, calls a function, and prints the result.

Commands import large libraries after parsing. Under ``torchrun`` only the main rank prints.
"""

import contextlib
import functools
import io
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from distill.cli.checking import configs, convert, evaluate, tables
from distill.cli.reporting import report, visualize
from distill.cli.reproducing import reproduce
from distill.cli.teacher_logits import store_logits, verify_logits
from distill.cli.training import train, train_teacher
from distill.errors import DistillError
from distill.runtime.torchrun_env import launched
from manifests.errors import PatchSetError
from manifests.support.console import FAILED, INTERRUPTED, WRONG_USAGE, ProgramGroup, run_program

GRACE = {FAILED: 10.0, WRONG_USAGE: 10.0, INTERRUPTED: 1.0}
"""Seconds that a failed rank waits before it ends, by exit status. ``torchrun`` ends all ranks when one rank ends.
The main rank does not wait, so that it can report the reason first."""


def logged(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with log lines on stdout. Log lines of eval, and of commands with --json, are on stderr."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        from distill.runtime.logs import log_to_console  # noqa: PLC0415 - --help needs no logging

        log_to_console(to_stderr=name == "eval" or options.get("as_json", False))
        command(*arguments, **options)

    return run


@contextlib.contextmanager
def only_main_rank_prints() -> Iterator[None]:
    """Suppress the output of all ranks except the main rank. A rank that fails prints its error."""
    try:
        rank = launched().get("rank", 0)
    except DistillError:  # the command raises it again and reports it
        rank = 0
    if not rank:
        yield
        return
    captured = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(captured):
            yield
    except SystemExit as stop:
        if stop.code and captured.getvalue():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(GRACE.get(int(stop.code), 0.0))
            if stop.code != INTERRUPTED:
                sys.stderr.write(f"rank {rank}: {captured.getvalue()}")
        raise


@click.group(cls=ProgramGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="single-image-distillation", prog_name="distill")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train student networks on patch sets with the outputs of a teacher network."""
    command = context.invoked_subcommand
    if command not in (train.name, train_teacher.name) and launched():
        raise DistillError(f"{command}: this command runs in one process, not in several; start it without torchrun")


TRAINING = (train, train_teacher, store_logits, verify_logits)
for command in (*TRAINING, evaluate, convert, visualize, report, reproduce, configs, tables):
    if command.callback is not None:
        command.callback = logged(str(command.name), command.callback)
    cli.add_command(command)


def main() -> None:
    """Run the program ``distill``; see ``run_program`` for exit statuses."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
    with only_main_rank_prints():
        run_program(cli, "distill", (DistillError, PatchSetError))
