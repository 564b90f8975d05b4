"""Decoding processes. Each is forked from this process, has its own pipe, and is driven by its own thread.

The processes write pixels into memory that was mapped before the fork. They need no lock and no file in ``/dev/shm``,
which may be too small or missing in a container. When a process ends, its pipe closes, and its thread notices.
"""

import contextlib
import gc
import queue
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from distill.errors import DistillError
from manifests.support.processes import die_with_parent, starting_processes

GRACE_SECONDS = 5.0  # longest wait for a killed process to end
_CAUSES = {
    signal.SIGKILL: "probably because memory ran out; use fewer data.workers",
    signal.SIGBUS: "probably because the disk of data.cache_dir is full or missing; choose another data.cache_dir",
}
_RETRY = "run the same command again"
_FORK = get_context("fork")


class Workers:
    """A pool of ``count`` processes that call ``work`` with each job. With 0, a thread of this process calls it."""

    def __init__(self, count: int, work: Callable[[Any], None]) -> None:
        self._work = work
        self._processes: list[BaseProcess] = []
        self._idle: queue.SimpleQueue[tuple[BaseProcess, Connection]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max(count, 1))
        try:
            with starting_processes() if count else contextlib.nullcontext():
                for _ in range(count):
                    pipe, end = _FORK.Pipe()
                    process = _FORK.Process(target=_serve, args=(end, work), daemon=True)
                    process.start()
                    end.close()  # now only the process has this end, so the pipe breaks when the process ends
                    self._processes.append(process)
                    self._idle.put((process, pipe))
        except BaseException as error:
            self.close()
            if not isinstance(error, OSError):
                raise
            reason = error.strerror or str(error)
            message = f"data.workers {count}: a decoding process cannot start: {reason}; set fewer data.workers"
            raise DistillError(message) from error

    def submit(self, job: Any) -> Future[None]:
        """Start a job, and return its future, which raises DistillError if ``work`` failed or its process ended."""
        return self._threads.submit(self._run, job)

    def close(self) -> None:
        """Kill the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(GRACE_SECONDS)
        self._threads.shutdown(cancel_futures=True)

    def _run(self, job: Any) -> None:
        if not self._processes:
            self._work(job)
            return
        process, pipe = self._idle.get()
        try:
            pipe.send(job)
            error: DistillError | None = pipe.recv()
        except (EOFError, OSError):
            error = _exit_error(process)
        finally:
            self._idle.put((process, pipe))
        if error is not None:
            raise error


def _exit_error(process: BaseProcess) -> DistillError:
    process.join(GRACE_SECONDS)
    status = process.exitcode
    if status is None or status >= 0:
        return DistillError(f"a decoding process ended with status {status}; report this to the developers")
    number = signal.Signals(-status)
    return DistillError(f"a decoding process was killed by {number.name}, {_CAUSES.get(number, _RETRY)}")


def _serve(end: Connection, work: Callable[[Any], None]) -> None:
    """Run the loop of a process: receive a job, call ``work``, and send the error or None."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent handles them and ends this process
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    gc.freeze()  # do not collect objects of the parent
    torch.set_num_threads(1)  # the parent's threads do not exist in this process
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has closed the pipe
        while True:
            job = end.recv()
            error = None
            try:
                work(job)
            except DistillError as raised:
                error = raised
            end.send(error)
