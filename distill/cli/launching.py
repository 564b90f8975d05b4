"""Set up the output of commands: log lines on the console, and under ``torchrun`` output of the main rank only."""

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
"""Seconds that a failed rank waits before it ends, by exit status. The main rank does not wait: ``torchrun`` ends all
ranks when one rank has ended, and the main rank must report the reason before."""


def logged(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Print log lines while a command runs: on stdout, or on stderr if only results may be on stdout."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        from distill.runtime.logs import log_to_console  # noqa: PLC0415 - --help needs no logging

        log_to_console(to_stderr=name == "eval" or options.get("as_json", False))
        command(*arguments, **options)

    return run


@contextlib.contextmanager
def only_main_rank_prints() -> Iterator[None]:
    """Let only the main rank print. Another rank prints its error if it fails."""
    try:
        rank = launched().get("rank", 0)
    except DistillError:  # the command raises it again and reports it
        rank = 0
    if not rank:
        yield
        return
    captured = io.StringIO()
    try:
        with (
            Path(os.devnull).open("w") as null,
            contextlib.redirect_stdout(null),
            contextlib.redirect_stderr(captured),
        ):
            yield
    except SystemExit as stop:
        if stop.code and captured.getvalue():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(GRACE.get(int(stop.code), 0.0))
            if stop.code != INTERRUPTED:
                sys.stderr.write(f"rank {rank}: {captured.getvalue()}")
        raise
