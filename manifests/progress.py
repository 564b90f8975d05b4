"""A progress bar on a terminal, silence elsewhere. Here because both programs show one, and only meet here."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
