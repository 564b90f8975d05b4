"""Run transfer jobs in several threads, and report their progress from the calling thread."""

import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from typing import Any

from manifests.support.console import note

THREADS = 4
_GRACE_SECONDS = 2.0  # that running jobs get to end after an error; a thread that waits for a server is abandoned


class Stopped(Exception):  # noqa: N818 - no error of its own
    """Another job failed, or the user interrupted: this job must end."""


class Channel:
    """Lets a job report progress, print notes, and learn that it must end.

    ``count`` takes the bytes that were done, a negative number if some must be transferred again. ``note`` takes a
    line for the user.
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
        """Wait, or raise ``Stopped`` as soon as the job must end."""
        self._stop.wait(seconds)
        self.check()


Job = Callable[[Channel], None]


def direct_channel() -> Channel:
    """Return a channel for work in the calling thread: notes are printed, bytes are not counted."""
    return Channel(lambda message: note(message) if isinstance(message, str) else None, threading.Event())


def run_jobs(jobs: Sequence[Job], on_bytes: Callable[[int], None]) -> None:
    """Run all jobs in threads. ``on_bytes`` is called in the calling thread with the bytes they count.

    The first error of a job stops the others and is raised.
    """
    messages: SimpleQueue[Any] = SimpleQueue()  # int, str, an error, or None for a job that is done
    stop = threading.Event()
    channel = Channel(messages.put, stop)

    def run(job: Job) -> None:
        channel.check()
        job(channel)

    # A ThreadPool, and no ThreadPoolExecutor: its threads are daemons, so that a silent server does not keep an
    # interrupted program alive.
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
