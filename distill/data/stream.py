"""Sets too large for memory: shards are read again in every epoch, in a random order, a window at a time.

``Streamed`` is a ``Source`` in a ``WindowOrder``. Processes decode ahead, and a thread collects their images, so that
the next window is ready when the run has used the current one.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from distill.data.decode import Rows, chunk_of, decode_shard, useful_workers
from distill.data.sampler import Place, WindowOrder
from distill.data.workers import GRACE_SECONDS, POLL_SECONDS, Pixels, Workers
from distill.runtime.context import RunContext
from distill.runtime.distributed import Ranks
from manifests import PatchSet

Job = tuple[Place, int]
"""A window, and the place of a shard in it."""
Answer = tuple[Place, int, Rows]
"""A job, and rows of its shard."""


class Streamed:
    """A source that reads a verified set again in every epoch. Steps are fast in order, slow in any other.

    Every rank reads all shards and decodes the patches that it needs.
    """

    def __init__(self, patchset: PatchSet, order: WindowOrder, workers: int, context: RunContext) -> None:
        self._patchset, self.order, self._workers, self.context = patchset, order, workers, context
        self._windows: dict[Place, Tensor] = {}
        self._reader: _Reader | None = None

    @property
    def size(self) -> int:
        return self._patchset.manifest.size

    def images(self, step: int) -> Tensor:
        """Return this rank's images of ``order.batch(step)``."""
        pieces = self.order.pieces(step, self.context.ranks)
        wanted = [place for place, _ in pieces]
        self._windows = {place: pixels for place, pixels in self._windows.items() if place in wanted}
        for place in wanted:
            if place not in self._windows:
                self._windows[place] = self._read(place)
        if self._reader is not None:
            self._reader.check()
        images = torch.cat([self._windows[place][rows] for place, rows in pieces])
        return images.to(self.context.device, non_blocking=True)

    def close(self) -> None:
        """Stop the processes and the thread that read ahead."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, place: Place) -> Tensor:
        if self._reader is None or self._reader.next != place:
            self.close()
            self._reader = _Reader(self._patchset, self.order, self._workers, self.context.ranks, place)
        return self._reader.take()


class _Reader:
    """Reads windows from ``first`` on, one ahead of the last one taken."""

    def __init__(self, patchset: PatchSet, order: WindowOrder, workers: int, ranks: Ranks, first: Place) -> None:
        self.next = first
        self._patchset, self._order, self._ranks = patchset, order, ranks
        self._filling = self._unread = first
        self._jobs: deque[Job] = deque()
        self._ready: queue.Queue[Tensor] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._error: BaseException | None = None
        size = patchset.manifest.size
        self._workers = Workers(
            useful_workers(patchset, workers), self._decode, (chunk_of(size), size, size, 3)
        )  # starts the processes, in this thread
        self._thread = threading.Thread(target=self._collect, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._workers.close()
            raise

    def take(self) -> Tensor:
        """Return the next window: uint8 (rows, size, size, 3); only this rank's rows are set."""
        while True:
            self.check()
            with contextlib.suppress(queue.Empty):
                window = self._ready.get(timeout=POLL_SECONDS)
                self.next = self._order.after(self.next)
                return window

    def check(self) -> None:
        """Raise the error that stopped the reader, if any."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        self._workers.close()  # the thread may wait for them
        self._thread.join(GRACE_SECONDS)

    def _collect(self) -> None:
        """Fill one window after the other; the processes may be one window ahead."""
        try:
            chunks = self._workers.answers(self._next_job)
            windows: dict[Place, _Window] = {}
            while not self._closed.is_set():
                window = windows.pop(self._filling, None) or self._window(self._filling)
                while window.missing and not self._closed.is_set():
                    (place, part, rows), images = next(chunks)
                    if place == self._filling:
                        window.add(part, rows, images)
                        continue
                    if place not in windows:
                        windows[place] = self._window(place)
                    windows[place].add(part, rows, images)
                self._hand_over(window.pixels)
                self._filling = self._order.after(self._filling)
        except BaseException as error:  # noqa: BLE001 - it is raised where windows are taken
            self._error = error

    def _window(self, place: Place) -> "_Window":
        shards = self._patchset.manifest.shards
        sizes = [shards[number].n for number in self._order.shards(place)]
        return _Window(sizes, self._patchset.manifest.size, int(self._order.wanted(place, self._ranks).sum()))

    def _hand_over(self, pixels: Tensor) -> None:
        while not self._closed.is_set():
            try:
                self._ready.put(pixels, timeout=POLL_SECONDS)
            except queue.Full:
                self._workers.check()
            else:
                return

    def _next_job(self) -> Job | None:
        """Return the next shard to decode, if its window is the one being filled or the one after it."""
        if not self._jobs and self._unread in (self._filling, self._order.after(self._filling)):
            self._jobs.extend((self._unread, part) for part in range(len(self._order.shards(self._unread))))
            self._unread = self._order.after(self._unread)
        return self._jobs.popleft() if self._jobs else None

    def _decode(self, job: Job) -> Iterator[tuple[Answer, list[Pixels]]]:
        """Decode, in a worker process, the patches of a shard that this rank needs."""
        place, part = job
        numbers = self._order.shards(place)
        sizes = [self._patchset.manifest.shards[number].n for number in numbers]
        wanted = self._order.wanted(place, self._ranks).split(sizes)[part]
        for rows, images in decode_shard(self._patchset, numbers[part], wanted.numpy()):
            yield (place, part, rows), images


class _Window:
    """The pixels of a window whose shards have ``sizes`` patches; ``missing`` counts the rows still to come."""

    def __init__(self, sizes: list[int], size: int, missing: int) -> None:
        self._firsts = np.cumsum([0, *sizes])
        self.pixels = torch.empty((int(self._firsts[-1]), size, size, 3), dtype=torch.uint8)
        self.missing = missing

    def add(self, part: int, rows: Rows, images: Pixels) -> None:
        """Set rows of shard number ``part`` of the window."""
        self.pixels[torch.from_numpy(rows + self._firsts[part])] = torch.from_numpy(images)
        self.missing -= len(rows)
