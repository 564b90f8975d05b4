"""Start worker processes from a fork server, handle signals meanwhile, and end every worker.

This module imports little, so that the fork server can start before heavy imports of the program.
"""

import contextlib
import ctypes
import errno
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

_FILE_ERRORS = (errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ENOSYS, errno.ENOTDIR)
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_OLD_LIMIT = 32 << 20  # of glibc before 2.35


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_server(preload: str) -> ForkServerContext:
    """Start a fork server that imports module ``preload`` once and forks clean, single-threaded workers.

    Returns its multiprocessing context. Called early, it imports while this process does its own imports.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    try:
        resource_tracker.ensure_running()  # its start unblocks SIGINT, so it must start first
        with starting_processes():
            forkserver.ensure_running()
    except OSError as error:
        reason = error.strerror or str(error)
        raise PatchSetError(f"worker processes cannot start: {reason}; put that right, or use --workers 1") from error
    return context


@contextlib.contextmanager
def explaining_start() -> Iterator[None]:
    """Explain why a pool's locks, values or processes cannot be created. On Linux these are files in /dev/shm."""
    try:
        yield
    except OSError as error:
        reason, remedy = error.strerror or str(error), "put that right,"
        if error.errno in _FILE_ERRORS:
            reason, remedy = f"/dev/shm: {reason}", "make it writable and free some space there,"  # noqa: S108
        raise PatchSetError(f"worker processes cannot start: {reason}; {remedy} or use --workers 1") from error


def end_pool(pool: "ProcessPoolExecutor") -> None:
    """Cancel what is queued in a pool, wait for its processes to exit, and kill those still alive after a while."""
    processes = list((pool._processes or {}).values())  # Python 3.14 has kill_workers for it
    pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()


@contextlib.contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Handle SIGINT and SIGTERM with ``handler`` in the block, if this is the main thread."""
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
    """Start processes that ignore Ctrl-C, and raise one that comes meanwhile when all have started.

    Children inherit this thread's signal mask. The mask alone is not enough in this process: another library's
    thread may receive the signal, and an exception in the middle would leave half a pool.
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
    """End this worker when its parent ends. Without this, workers of a killed parent wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_with(parent: int) -> None:
    """Make Linux send this program SIGTERM when the process ``parent``, which started it, dies for any reason."""
    with contextlib.suppress(OSError, AttributeError):  # other systems have no such call
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before
        os.kill(os.getpid(), signal.SIGTERM)


def keep_freed_memory(limit: int) -> None:
    """Let the C library keep up to ``limit`` bytes that this process frees, instead of returning them at once.

    Otherwise large arrays that are created repeatedly are faulted in page by page each time.
    """
    with contextlib.suppress(OSError, AttributeError):  # only the GNU C library has this call
        mallopt = ctypes.CDLL(None).mallopt
        if not mallopt(_M_MMAP_THRESHOLD, limit):
            mallopt(_M_MMAP_THRESHOLD, min(limit, _OLD_LIMIT))
        mallopt(_M_TRIM_THRESHOLD, limit)
