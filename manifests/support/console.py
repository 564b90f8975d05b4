"""Run a command line program: print errors in one line, set the exit status, print notes, show a progress bar."""

import contextlib
import functools
import io
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import click

from manifests.support.redaction import redact

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130  # exit statuses
MAX_LETTERS = 1500  # characters of an error line
LINE_SECONDS = 60.0  # between lines of progress where stderr is no terminal
_VERBOSITY = "manifests.support.console.verbosity"

Update = Callable[..., None]  # the function that ``progress_bar`` yields


class InterruptedProgram(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user stopped a program that can continue later. The message tells the user how to continue."""


class ProgramGroup(click.Group):
    """The commands of a program. Each command also accepts ``-q`` and ``-v``."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, and add the options ``-q`` and ``-v`` to it."""
        for short, long, verbosity, text in (
            ("-q", "--quiet", -1, "Print only the result and errors."),
            ("-v", "--verbose", 1, "Print more notes, and the place in the code that raised an error."),
        ):
            callback = functools.partial(_set_verbosity, verbosity)
            option = click.Option([short, long], is_flag=True, expose_value=False, callback=callback, help=text)
            cmd.params.append(option)
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. With ``-v``, print the traceback of an error. ``run_program`` then prints the error line."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, InterruptedProgram):
            raise
        except Exception:
            if ctx.meta.get(_VERBOSITY, 0) > 0:
                _print(redact(traceback.format_exc().rstrip()), err=True)
            raise


def _set_verbosity(verbosity: int, context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.meta[_VERBOSITY] = verbosity


def _verbosity() -> int:
    """Return 1 with ``-v``, -1 with ``-q``, else 0."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else context.meta.get(_VERBOSITY, 0)


def say(line: str) -> None:
    """Print a line to stdout. With ``-q``, print nothing."""
    if _verbosity() >= 0:
        _print(line)


def note(line: str) -> None:
    """Print a note to stderr, so that results on stdout stay separate. With ``-q``, print nothing."""
    if _verbosity() >= 0:
        _print(printable(redact(line)), err=True)


def detail(line: str) -> None:
    """Print a note to stderr if the user chose ``-v``."""
    if _verbosity() > 0:
        _print(redact(line), err=True)


def _print(line: str, *, err: bool = False) -> None:
    try:
        click.echo(line, err=err)
    except BrokenPipeError:
        raise  # the program that reads the output has ended; click ends this program
    except OSError as error:  # callers would take it for an error of their own files
        raise click.ClickException(error.strerror or str(error)) from error


def run_program(cli: click.Group, name: str, errors: tuple[type[Exception], ...]) -> None:
    """Run a command line and exit with status 0, 1 after one of ``errors``, 2 for wrong usage, or 130 if interrupted.

    Each of ``errors`` is printed as one line on stderr. Any other exception is a defect and prints its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal cannot show
    try:
        status = cli.main(prog_name=name, standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)  # a command may return an exit status
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(WRONG_USAGE)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else name
        message = " ".join(error.format_message().split())
        end = "" if message.endswith((".", "?")) else "."
        _fail(where, f"{message}{end} See '{where} --help'.", WRONG_USAGE)
    except errors as error:
        _fail(name, str(error), FAILED)
    except InterruptedProgram as stop:
        import logging  # noqa: PLC0415 - it would slow down --help

        # asyncio would log that the connections of abandoned threads are cut.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        _fail(name, str(stop), INTERRUPTED)
    except (click.ClickException, OSError) as error:  # of stdout, because commands handle errors of their own files
        reason = getattr(error, "strerror", None) or error
        _fail(name, f"the output cannot be written: {reason}; redirect it to another file", FAILED)
    except (click.Abort, KeyboardInterrupt):
        _fail(name, "interrupted by the user", INTERRUPTED)


def _fail(where: str, message: str, status: int) -> None:
    if len(message := redact(message)) > MAX_LETTERS:  # an untrusted name may have megabytes
        message = f"{message[: MAX_LETTERS // 2]} … {message[-MAX_LETTERS // 2 :]}"
    if sys.getfilesystemencoding() != "utf-8" and any("\udc80" <= letter <= "\udcff" for letter in message):
        message += " (the cause may be the locale, which is not UTF-8; then set PYTHONUTF8=1)"
    click.echo(f"{where}: {printable(message)}", err=True)
    sys.exit(status)


def printable(text: str) -> str:
    """Return a text on one line. Characters that could control a terminal become escapes."""
    line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def shell_word(text: str) -> str:
    r"""Quote a text for a shell, so that a user can paste the text into a command. Return the quoted text.

    Use escapes, such as ``$'caf\351'``, for bytes that are not UTF-8 and for characters that a terminal cannot show.
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + re.sub(r"[^ -~]|[\\']", _octal, text) + "'"


def _octal(letter: re.Match[str]) -> str:
    return "".join(f"\\{byte:03o}" for byte in letter[0].encode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Update]:
    """Show a progress bar on stderr while the block runs. If stderr is no terminal, print a line each minute.

    Yield a function ``update(done, note="")``. A call moves the bar to ``done`` of ``total``, and shows ``note``.
    """
    hidden = _verbosity() < 0 or sys.stderr is None or hasattr(sys.stderr, "rich_proxied_file")  # rich shows a bar
    if hidden or not sys.stderr.isatty():
        yield (lambda done, note="": None) if hidden else _line_printer(what, total)
        return
    from rich import console, progress  # noqa: PLC0415 - only a visible bar needs it

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TextColumn("{task.fields[note]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="", note="")

        def update(done: int, note: str = "") -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:,.0f}/s" if speed else "", note=note)

        yield update


def _line_printer(what: str, total: int) -> Update:
    printed = time.monotonic()

    def update(done: int, note: str = "") -> None:
        nonlocal printed
        if time.monotonic() - printed >= LINE_SECONDS:
            printed = time.monotonic()
            click.echo(", ".join([f"{what}: {done:,} of {total:,}", *filter(None, [note])]), err=True)

    return update


def counting(update: Callable[[int], None]) -> Callable[[int], None]:
    """Return a function ``add(count)``. Each call adds ``count`` to a sum, and calls ``update`` with the sum."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        update(done)

    return add
