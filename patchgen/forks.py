"""The fork server that workers come from, and who hears signals while processes start.

Imports next to nothing, so that the server can be started before anything heavy is imported here.
"""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Any


def start_server() -> ForkServerContext:
    """The context whose fork server imports the heavy packages once, and forks clean, single-threaded workers.

    Called early, it imports them while this process is busy with its own.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["patchgen.write"])
    with starting_processes():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Handle SIGINT and SIGTERM with ``handler`` in the block, where this is the thread that hears them."""
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
    """Start processes that never hear Ctrl-C; one that comes meanwhile is heard here when all have started.

    Children inherit this thread's signal mask. The mask alone does not keep the signal from this process, where
    another library's thread may take it, and an exception in the middle would leave half a pool.
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
