"""Several files at once: threads that fetch or send, and one that waits for them and hears what they say."""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from manifests.errors import PatchSetError
from manifests.support.console import note

THREADS = 4
_GRACE = 2.0
"""Seconds that threads get to end; one that waits for a server ends with the program, and writes no more."""


class Stopped(Exception):  # noqa: N818 - no error of its own
    """Another file failed, or the user stopped: this one goes no further."""


class Channel:
    """What a job may say while it works, and whether it should stop."""

    def __init__(self, tell: Callable[[int | str], None], stop: threading.Event) -> None:
        self._tell, self._stop = tell, stop

    def count(self, done: int) -> None:
        """So many bytes more are done; fewer than none where some must be done again."""
        self._tell(done)

    def note(self, line: str) -> None:
        """A line for the user."""
        self._tell(line)

    def check(self) -> None:
        """Raises: Stopped: no more is wanted."""
        if self._stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait, unless no more is wanted.

        Raises:
            Stopped: no more is.
        """
        self._stop.wait(seconds)
        self.check()


Job = Callable[[Channel], None]
Said = SimpleQueue[int | str | Exception | None]
"""Bytes, notes, an error, and None from each thread that ends."""


def alone() -> Channel:
    """A channel for work in the caller's own thread: its notes are shown, its bytes are not counted."""
    return Channel(lambda said: note(said) if isinstance(said, str) else None, threading.Event())


def run_jobs(jobs: Sequence[Job], on_bytes: Callable[[int], None], threads: int = THREADS) -> None:
    """Do every job, ``threads`` at a time; ``on_bytes`` hears, in this thread, what they count.

    Raises:
        PatchSetError, OSError: the first that a job raised; the others are stopped.
    """
    said: Said = SimpleQueue()
    waiting: SimpleQueue[Job] = SimpleQueue()
    stop = threading.Event()
    for job in jobs:
        waiting.put(job)
    count = min(threads, len(jobs))
    # Daemons: a thread in the middle of a silent server's answer must not keep a stopped program for half a minute.
    workers = [threading.Thread(target=_work, args=(waiting, said, stop), daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        _listen(said, count, on_bytes)
    finally:
        stop.set()
        end = time.monotonic() + _GRACE
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
    if not waiting.empty():
        raise RuntimeError("a thread that moves files died")  # its own traceback is on stderr


def _work(waiting: SimpleQueue[Job], said: Said, stop: threading.Event) -> None:
    channel = Channel(said.put, stop)
    try:
        while not stop.is_set():
            waiting.get_nowait()(channel)
    except (Empty, Stopped):
        pass
    except (PatchSetError, OSError) as error:
        said.put(error)
    finally:
        said.put(None)


def _listen(said: Said, workers: int, on_bytes: Callable[[int], None]) -> None:
    while workers:
        word = said.get()
        if word is None:
            workers -= 1
        elif isinstance(word, Exception):
            raise word
        elif isinstance(word, str):
            note(word)
        else:
            on_bytes(word)
