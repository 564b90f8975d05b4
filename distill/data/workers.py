"""Decoding processes, forked from this one, each with its own pipe.

Pixels come back in memory that is mapped before the fork. No lock and no file in ``/dev/shm`` is used: in a container
it may be too small or missing, and a killed process would keep its locks. A process that ends closes its pipe, which
is noticed at once.
"""

import contextlib
import gc
import mmap
import signal
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from distill.errors import DistillError
from manifests.support.processes import die_with_parent, starting_processes

POLL_SECONDS = 0.2
SILENCE_SECONDS = 120.0
"""How long all busy processes may send nothing; a disk that does not answer would block them for ever."""
GRACE_SECONDS = 5.0
"""How long to wait for the end of a killed process, or of a thread that was told to stop."""
_AHEAD = 2
"""Chunks that a process may decode before the first of them is taken."""
_CAUSES = {
    signal.SIGKILL: "perhaps for want of memory; use fewer data.workers",
    signal.SIGBUS: "perhaps because the disk of data.cache_dir is full or gone; choose another data.cache_dir",
}

Pixels = npt.NDArray[np.uint8]
Job = TypeVar("Job")
Answer = TypeVar("Answer")
Work = Callable[[Job], Iterator[tuple[Answer, list[Pixels]]]]
"""Does a job and yields an answer and images for each chunk. Raises ``DistillError``."""


class Workers(Generic[Job, Answer]):
    """A pool of ``count`` processes; with 0, this process does the jobs. ``chunk`` is the largest chunk's shape."""

    def __init__(self, count: int, work: Work[Job, Answer], chunk: tuple[int, ...]) -> None:
        self._work = work
        self._members: list[_Member] = []
        try:
            with starting_processes() if count else contextlib.nullcontext():
                for _ in range(count):
                    self._members.append(_Member(work, chunk, [member.pipe for member in self._members]))
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            raise DistillError(
                f"data.workers {count}: a decoding process cannot start: {reason}; lower it"
            ) from error
        except BaseException:
            self.close()
            raise

    def answers(self, next_job: Callable[[], Job | None]) -> Iterator[tuple[Answer, Pixels]]:
        """Yield what ``work`` yields for every job, in any order. Pixels are valid until the next iteration.

        ``next_job`` is called whenever a process is idle; None means that there is no job now. The iterator ends
        when there is no job and no process is busy.
        """
        if not self._members:
            while (job := next_job()) is not None:
                for answer, images in self._work(job):
                    yield answer, np.stack(images) if images else np.empty(0, np.uint8)
            return
        idle, busy = list(self._members), []
        while True:
            while idle and (job := next_job()) is not None:
                busy.append(idle.pop())
                busy[-1].send(job)
            if not busy:
                return
            for member in self._await(busy):
                message = member.receive()
                if message is None:
                    busy.remove(member)
                    idle.append(member)
                    continue
                answer, count = message
                yield answer, member.chunk(count)
                member.send(None)

    def check(self) -> None:
        """Raise DistillError if a process has ended."""
        for member in self._members:
            if member.process.exitcode is not None:
                raise member.exit_error()

    def close(self) -> None:
        """Kill the processes."""
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.process.join(GRACE_SECONDS)

    def _await(self, busy: list["_Member"]) -> list["_Member"]:
        """Return the processes with an answer. Counts polls, not seconds: this program may be suspended."""
        for _ in range(max(round(SILENCE_SECONDS / POLL_SECONDS), 1)):
            ready = wait([member.pipe for member in busy], POLL_SECONDS)
            self.check()
            if ready:
                return [member for member in busy if member.pipe in ready]
        raise DistillError(
            f"the decoding processes have sent nothing for {SILENCE_SECONDS:.0f} s; see whether the disk of the set "
            "answers, and run it again"
        )


class _Member:
    """A process, this end of its pipe, and the shared memory that it writes chunks into, in turn."""

    def __init__(self, work: Work[Any, Any], chunk: tuple[int, ...], others: list[Connection]) -> None:
        size = int(np.prod((_AHEAD, *chunk)))
        memory = mmap.mmap(-1, max(size, 1))  # shared with the process, and in no file system
        self._places = np.frombuffer(memory, np.uint8, size).reshape(_AHEAD, *chunk)
        self._taken = 0
        self.pipe, end = get_context("fork").Pipe()
        arguments = (end, [*others, self.pipe], work, self._places)
        self.process = get_context("fork").Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        end.close()  # so that this process's end of the pipe breaks when that process ends

    def send(self, job: Any) -> None:
        """Send a job, or None when a place in the memory is free again."""
        try:
            self.pipe.send(job)
        except OSError as error:
            raise self.exit_error() from error

    def receive(self) -> tuple[Any, int] | None:
        """Return an answer and the number of images in its chunk, or None at the end of a job."""
        try:
            message: tuple[Any, int] | DistillError | None = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self.exit_error() from error
        if isinstance(message, DistillError):
            raise message
        return message

    def chunk(self, count: int) -> Pixels:
        """Return the pixels of the next chunk: ``count`` images."""
        self._taken += 1
        pixels: Pixels = self._places[(self._taken - 1) % _AHEAD][:count]
        return pixels

    def exit_error(self) -> DistillError:
        """Return an error that says how the process ended."""
        self.process.join(GRACE_SECONDS)
        status = self.process.exitcode
        if status is None or status >= 0:
            return DistillError(f"a decoding process ended with status {status}: report this")
        number = signal.Signals(-status)
        return DistillError(f"a decoding process was killed by {number.name}, {_CAUSES.get(number, 'run it again')}")


def _serve(end: Connection, others: list[Connection], work: Work[Any, Any], places: Pixels) -> None:
    """Run the loop of a process: receive jobs, and None for each free place; send answers."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles them and ends this process
        signal.signal(number, signal.SIG_IGN)
    for other in others:
        other.close()
    die_with_parent()
    gc.freeze()  # do not collect objects of the parent
    torch.set_num_threads(1)  # threads of the run are not in this process
    free, sent = _AHEAD, 0
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has closed the pipe
        while True:
            job = end.recv()
            if job is None:
                free += 1
                continue
            try:
                for answer, images in work(job):
                    while not free:
                        end.recv()
                        free += 1
                    if images:
                        np.stack(images, out=places[sent % _AHEAD][: len(images)])
                    end.send((answer, len(images)))
                    free, sent = free - 1, sent + 1
            except DistillError as error:
                end.send(error)
            end.send(None)
