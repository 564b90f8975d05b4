"""Commands under ``torchrun``: which of them may be, and that one rank speaks for all."""

import contextlib
import functools
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.runtime.torchrun_env import launched
from manifests.support.console import FAILED, INTERRUPTED, WRONG_USAGE

GRACE = {FAILED: 10.0, WRONG_USAGE: 10.0, INTERRUPTED: 1.0}
"""Seconds that another rank than the first stays after it failed: ``torchrun`` ends all as soon as one has ended, and
the first is to tell why before it does."""


def on_ranks(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first argument is the ranks that ``torchrun`` started it on."""

    @functools.wraps(command)
    def connected(*arguments: Any, **options: Any) -> None:
        from distill.runtime.distributed import joined  # noqa: PLC0415 - torch comes after parsing

        with joined() as ranks:
            command(ranks, *arguments, **options)

    return connected


def require_alone(command: str) -> None:
    """Refuse a command that would do its work as often as there are ranks.

    Raises:
        DistillError: there are several.
    """
    if launched():
        raise DistillError(f"{command}: is the work of one process; start it without torchrun")


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Keep every rank but the first silent, unless it alone fails."""
    try:
        rank = launched().get("rank", 0)
    except DistillError:  # is told where the ranks are asked for
        rank = 0
    with _held(rank) if rank else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _held(rank: int) -> Iterator[None]:
    said = io.StringIO()
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(said),
        ):
            yield
    except SystemExit as stop:
        if stop.code and said.getvalue():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(GRACE.get(int(stop.code), 0.0))
            if stop.code != INTERRUPTED:
                sys.stderr.write(f"rank {rank}: {said.getvalue()}")
        raise
