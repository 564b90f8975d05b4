"""Start worker processes from a fork server, handle signals during the start, and end every worker.

This module imports little, so that the fork server can start before the program imports large libraries.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from typing import TYPE_CHECKING, Any

from manifests.errors import PatchSetError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

GRACE_SECONDS = 10.0  # longest wait for the processes of a pool to exit before they are killed

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_server(preload: str) -> ForkServerContext:
    """Start a fork server that imports the module ``preload``. Return the context of the server.

    The server imports the module in the background, so an early call saves time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    with explaining_start():
        resource_tracker.ensure_running()  # its start unblocks SIGINT, so it must start first
        with starting_processes():
            forkserver.ensure_running()
    return context


@contextlib.contextmanager
def explaining_start() -> Iterator[None]:
    """Raise a PatchSetError if the block cannot create processes or their locks."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "make /dev/shm and the temporary folder writable and free some space there, or use --workers 1"
        raise PatchSetError(f"worker processes cannot start: {reason}; {advice}") from error


def end_pool(pool: "ProcessPoolExecutor") -> None:
    """Cancel the queued calls of a pool, and end its processes. Kill processes that run after ``GRACE_SECONDS``."""
    processes = list((pool._processes or {}).values())  # Python 3.14 has kill_workers for it
    pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()


@contextlib.contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Call ``handler`` for SIGINT and SIGTERM while the block runs. In other threads, change no handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextlib.contextmanager
def starting_processes() -> Iterator[None]:
    """Make all processes that the block starts ignore Ctrl-C. Delay a KeyboardInterrupt until the block ends.

    New processes inherit the signal mask of this thread. Another thread of this process may still receive SIGINT, so
    a handler records the signal. An exception in the block would leave a pool with too few processes.
    """
    received: list[int] = []
    with handling(lambda number, frame: received.append(number)):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if received:
        raise KeyboardInterrupt


def die_with_parent() -> None:
    """End this worker when its parent ends. Otherwise the workers of a killed parent would wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_with(parent: int) -> None:
    """Make Linux send SIGTERM to this process when the process ``parent`` ends. ``parent`` started this process."""
    with contextlib.suppress(OSError, AttributeError):  # other systems lack this call
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent has already ended
        os.kill(os.getpid(), signal.SIGTERM)


def keep_freed_memory(limit: int) -> None:
    """Let the C library keep up to ``limit`` bytes of freed memory. Large arrays are then created faster."""
    with contextlib.suppress(OSError, AttributeError):  # only the GNU C library has this call
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, limit)
        mallopt(_M_TRIM_THRESHOLD, limit)
