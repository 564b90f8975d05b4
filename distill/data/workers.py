"""Decoding processes, forked from this one, each with its own pipe and driven by its own thread.

They write pixels into memory that was mapped before the fork. No lock and no file in ``/dev/shm`` is used: in a
container it may be too small or missing. A process that ends closes its pipe, which is noticed at once.
"""

import contextlib
import gc
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

import torch

from distill.errors import DistillError
from manifests.support.processes import die_with_parent, starting_processes

POLL_SECONDS = 0.2
SILENCE_SECONDS = (
    120.0  # how long a busy process may send nothing; a disk that does not answer would block it for ever
)
GRACE_SECONDS = 5.0  # how long to wait for the end of a killed process
REPORTED = 256  # images after which a process tells that it is alive
_CAUSES = {
    signal.SIGKILL: "perhaps for want of memory; use fewer data.workers",
    signal.SIGBUS: "perhaps because the disk of data.cache_dir is full or gone; choose another data.cache_dir",
}
_FORK = get_context("fork")

Job = TypeVar("Job")


class Workers(Generic[Job]):
    """A pool of ``count`` processes that call ``work``; with 0, a thread of this process does.

    ``work`` yields after each image. ``on_images`` is called with the number of further images, from several threads,
    one at a time.
    """

    def __init__(
        self, count: int, work: Callable[[Job], Iterator[None]], on_images: Callable[[int], None] = lambda count: None
    ) -> None:
        self._work, self._on_images = work, on_images
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._members: list[_Member] = []
        self._idle: queue.SimpleQueue[_Member] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max(count, 1))
        try:
            with starting_processes() if count else contextlib.nullcontext():
                for _ in range(count):
                    self._members.append(_Member(work, [member.pipe for member in self._members]))
                    self._idle.put(self._members[-1])
        except BaseException as error:
            self.close()
            if not isinstance(error, OSError):
                raise
            reason = error.strerror or str(error)
            raise DistillError(
                f"data.workers {count}: a decoding process cannot start: {reason}; lower it"
            ) from error

    def submit(self, job: Job) -> Future[None]:
        """Start a job; its future raises DistillError if ``work`` raised it, or its process ends or is stuck."""
        return self._threads.submit(self._run, job)

    def close(self) -> None:
        """Kill the processes."""
        self._closed.set()
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.process.join(GRACE_SECONDS)
        self._threads.shutdown(cancel_futures=True)

    def _run(self, job: Job) -> None:
        if not self._members:
            for _ in self._work(job):
                if self._closed.is_set():
                    return
                self._on_images(1)
            return
        member = self._idle.get()
        try:
            for count in member.run(job):
                with self._lock:
                    self._on_images(count)
        finally:
            self._idle.put(member)


class _Member:
    """A process and this end of its pipe. Only one thread at a time may use it."""

    def __init__(self, work: Callable[[Any], Iterator[None]], others: list[Connection]) -> None:
        self.pipe, end = _FORK.Pipe()
        self.process = _FORK.Process(target=_serve, args=(end, [*others, self.pipe], work), daemon=True)
        self.process.start()
        end.close()  # so that this process's end of the pipe breaks when that process ends

    def run(self, job: Any) -> Iterator[int]:
        """Send a job, and yield numbers of images until the job ends."""
        try:
            self.pipe.send(job)
            while (message := self._receive()) is not None:
                if isinstance(message, DistillError):
                    raise message
                yield message
        except (EOFError, OSError) as error:
            raise self._exit_error() from error

    def _receive(self) -> int | DistillError | None:
        """Return the next message. Counts polls, not seconds, because this program may be suspended."""
        if not any(self.pipe.poll(POLL_SECONDS) for _ in range(round(SILENCE_SECONDS / POLL_SECONDS))):
            raise DistillError(
                f"a decoding process has sent nothing for {SILENCE_SECONDS:.0f} s; see whether the disk of the set "
                "answers, and run it again"
            )
        message: int | DistillError | None = self.pipe.recv()
        return message

    def _exit_error(self) -> DistillError:
        """Return an error that says how the process ended."""
        self.process.join(GRACE_SECONDS)
        status = self.process.exitcode
        if status is None or status >= 0:
            return DistillError(f"a decoding process ended with status {status}: report this")
        number = signal.Signals(-status)
        return DistillError(f"a decoding process was killed by {number.name}, {_CAUSES.get(number, 'run it again')}")


def _serve(end: Connection, others: list[Connection], work: Callable[[Any], Iterator[None]]) -> None:
    """Run the loop of a process: receive jobs; for each send numbers of images, then an error or None."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles them and ends this process
        signal.signal(number, signal.SIG_IGN)
    for other in others:
        other.close()
    die_with_parent()
    gc.freeze()  # do not collect objects of the parent
    torch.set_num_threads(1)  # threads of the run are not in this process
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has closed the pipe
        while True:
            job, count = end.recv(), 0
            try:
                for count, _ in enumerate(work(job), 1):
                    if count % REPORTED == 0:
                        end.send(REPORTED)
            except DistillError as error:
                end.send(error)
                continue
            end.send(count % REPORTED)
            end.send(None)
