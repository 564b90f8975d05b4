"""Run downloads and uploads in several threads, and report their progress in the calling thread."""

import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from typing import Any

from manifests.support.console import note

THREADS = 4
_GRACE_SECONDS = 2.0  # time to end for jobs after an error; a thread that still waits for a server is abandoned


class Stopped(Exception):  # noqa: N818 - not an error
    """The exception that ends a job, because another job failed or the user interrupted the program."""


class Channel:
    """The object through which a job reports to the thread that called ``run_jobs``.

    ``count`` reports a number of transferred bytes. A negative number means that bytes must be transferred again.
    ``note`` prints a line.
    """

    def __init__(self, send: Callable[[int | str], None], stop: threading.Event) -> None:
        self.count: Callable[[int], None] = send
        self.note: Callable[[str], None] = send
        self._stop = stop

    def check(self) -> None:
        """Raise ``Stopped`` if the job must end."""
        if self._stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait for a number of seconds. If the job must end, raise ``Stopped`` at once."""
        self._stop.wait(seconds)
        self.check()


Job = Callable[[Channel], None]


def direct_channel() -> Channel:
    """Return a channel for work in the calling thread. It prints notes, and does not count bytes."""
    return Channel(lambda message: note(message) if isinstance(message, str) else None, threading.Event())


def run_jobs(jobs: Sequence[Job], on_bytes: Callable[[int], None]) -> None:
    """Run all jobs in threads. If a job raises an error, stop all jobs and raise the error.

    Call ``on_bytes`` in the calling thread with each number that a job gives to ``Channel.count``.
    """
    messages: SimpleQueue[Any] = SimpleQueue()  # bytes, notes, errors, and None for a finished job
    stop = threading.Event()
    channel = Channel(messages.put, stop)

    def run(job: Job) -> None:
        channel.check()
        job(channel)

    # The threads of a ThreadPool are daemons, so an interrupted program can end while a server does not answer.
    pool = ThreadPool(min(THREADS, len(jobs) or 1))
    results = [pool.apply_async(run, (job,), callback=messages.put, error_callback=messages.put) for job in jobs]
    pending = len(jobs)
    try:
        while pending:
            message = messages.get()
            if message is None:
                pending -= 1
            elif isinstance(message, BaseException):
                raise message
            elif isinstance(message, str):
                note(message)
            else:
                on_bytes(message)
    finally:
        stop.set()
        end = time.monotonic() + _GRACE_SECONDS
        for result in results:
            result.wait(max(0.0, end - time.monotonic()))
        pool.terminate()
