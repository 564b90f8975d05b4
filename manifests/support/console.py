"""What both programs do at a terminal: errors in one line, exit statuses, a progress bar.

It is no part of the format, and lives here because the programs meet nowhere else.
"""

import contextlib
import functools
import io
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import click

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
MAX_LETTERS = 1500
"""Of an error's line."""
_LEVEL = "manifests.support.console.level"


class InterruptedProgram(Exception):  # noqa: N818 - no error: the user asked for it
    """The user stopped a program that can go on later; the message says how."""


class ProgramGroup(click.Group):
    """A program's commands, each of which also takes ``-q`` and ``-v``."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """As click's; adds the two options."""
        for short, long, level, text in (
            ("-q", "--quiet", -1, "No progress, no notes: the result and errors."),
            ("-v", "--verbose", 1, "More notes, and where in the code an error arose."),
        ):
            callback = functools.partial(_set_level, level)
            option = click.Option([short, long], is_flag=True, expose_value=False, callback=callback, help=text)
            cmd.params.append(option)
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; with ``-v``, where an error arose is told before ``run_program`` makes it one line."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, InterruptedProgram):
            raise
        except Exception:
            if ctx.meta.get(_LEVEL, 0) > 0:
                traceback.print_exc()
            raise


def _set_level(level: int, context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.meta[_LEVEL] = level


def _level() -> int:
    """1 with ``-v``, -1 with ``-q``, else 0."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else context.meta.get(_LEVEL, 0)


def shell_word(text: str) -> str:
    """Return a text as a shell reads it back, for a command that a user may copy.

    Bytes that are no text, and characters that a terminal does not show, become escapes: ``$'caf\\351'``, which bash,
    zsh and POSIX shells since 2024 read.
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_shell_letter(character) for character in text) + "'"


def _shell_letter(character: str) -> str:
    if character.isprintable() and character not in "\\'":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def say(line: str) -> None:
    """A note on stdout, unless the user wants none."""
    if _level() >= 0:
        click.echo(line)


def note(line: str) -> None:
    """A note on stderr, unless the user wants none: what must not stand among results."""
    if _level() >= 0:
        click.echo(printable(line), err=True)


def detail(line: str) -> None:
    """A note on stderr for a user who wants all of them."""
    if _level() > 0:
        click.echo(line, err=True)


def run_program(cli: click.Group, name: str, errors: tuple[type[Exception], ...]) -> None:
    """Run a command line; ends with 0, with 1 for one of ``errors``, 2 for wrong usage, 130 if interrupted.

    Whatever went wrong is one line on stderr; any other exception is a defect and keeps its traceback, as do all
    with ``-v``.
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
        message = " ".join(error.format_message().split())
        end = "" if message.endswith((".", "?")) else "."
        _fail(where, f"{message}{end} See '{where} --help'.", WRONG_USAGE)
    except errors as error:
        _fail(name, str(error), FAILED)
    except InterruptedProgram as stop:
        import logging  # noqa: PLC0415 - it takes a tenth of the time of --help

        # A thread may still be sending; that its connection ends with the program is no news.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        _fail(name, str(stop), INTERRUPTED)
    except OSError as error:  # what the program itself writes to a file is handled there; this is stdout
        _fail(name, f"cannot write its output: {error.strerror or error}", FAILED)
    except (click.Abort, KeyboardInterrupt):
        _fail(name, "interrupted", INTERRUPTED)


def _fail(where: str, message: str, status: int) -> None:
    if len(message) > MAX_LETTERS:  # somebody else's names stand in it, and they may be megabytes long
        message = f"{message[: MAX_LETTERS // 2]} … {message[-MAX_LETTERS // 2 :]}"
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
    """Show a bar on stderr while the block runs, if stderr is a terminal; yields ``update(done, note)``.

    ``done`` is how much is done in all, and ``note`` a few words shown behind the rate.
    """
    if _level() < 0 or sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, note="": None
        return
    from rich import console, progress  # noqa: PLC0415 - only a bar that is shown needs it

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TextColumn("{task.fields[note]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total, rate="", note="")

        def update(done: int, note: str = "") -> None:
            speed = shown.tasks[0].speed
            shown.update(task, completed=done, rate=f"{speed:,.0f}/s" if speed else "", note=note)

        yield update


def counting(update: Callable[[int], None]) -> Callable[[int], None]:
    """A function that takes how much was done since its last call, and tells ``update`` how much in all."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        update(done)

    return add
