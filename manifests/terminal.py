"""What both programs do at a terminal: errors in one line, exit statuses, a progress bar.

It is no part of the format, and lives here because the programs meet nowhere else.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


class InterruptedProgram(Exception):  # noqa: N818 - no error: the user asked for it
    """The user stopped a program that can go on later; the message says how."""


def run_program(cli: click.Group, name: str, errors: tuple[type[Exception], ...]) -> None:
    """Run a command line; ends with 0, with 1 for one of ``errors``, 2 for wrong usage, 130 if interrupted.

    Whatever went wrong is one line on stderr; any other exception is a defect and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack a letter
    try:
        status = cli.main(prog_name=name, standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)  # a command may end with a status and no message
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        click.echo(help_wanted.format_message(), err=True)
        sys.exit(WRONG_USAGE)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else name
        _fail(where, f"{' '.join(error.format_message().split())} See '{where} --help'.", WRONG_USAGE)
    except errors as error:
        _fail(name, str(error), FAILED)
    except InterruptedProgram as stop:
        _fail(name, str(stop), INTERRUPTED)
    except OSError as error:  # what the program itself writes to a file is handled there; this is stdout
        _fail(name, f"cannot write its output: {error.strerror or error}", FAILED)
    except (click.Abort, KeyboardInterrupt):
        _fail(name, "interrupted", INTERRUPTED)


def _fail(where: str, message: str, status: int) -> None:
    click.echo(f"{where}: {printable(message)}", err=True)
    sys.exit(status)


def printable(text: str) -> str:
    """A text on one line, with every character that could move a terminal's cursor or colours written out."""
    line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class Update(Protocol):
    """What ``progress_bar`` yields."""

    def __call__(self, done: int, note: str = "") -> None:
        """Move the bar to ``done``."""


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Update]:
    """Show a bar on stderr while the block runs; yields ``update(done, note)``.

    ``done`` is how much is done in all, and ``note`` a few words shown behind the rate.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=total, rate="", note="")

        def update(done: int, note: str = "") -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, rate=f"{speed:,.0f}/s" if speed else "", note=note)

        yield update


def counting(update: Callable[[int], None]) -> Callable[[int], None]:
    """A function that takes how much was done since its last call, and tells ``update`` how much in all."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        update(done)

    return add
