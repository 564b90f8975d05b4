"""Sets too large to hold: shards are read again in every epoch, in a random order, a window of them at a time.

``Streamed`` is a ``Source`` in a ``WindowOrder``. Processes decode ahead; a thread collects what they send, so that
the next window is ready when the run has seen the present one.
"""

import queue
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from distill.data.order import Place, WindowOrder
from distill.data.patches import Pixels, chunk_of, decode_sample, ended, ignore_signals, tar_errors
from distill.data.tars import read_samples
from distill.errors import DistillError
from distill.ranks import ALONE, Ranks
from manifests import PatchSet
from manifests.counts import counted
from manifests.processes import usable_cores

Chunk = tuple[Place, int, Tensor, Tensor]
"""A window, the place of a shard in it, rows of that shard, and their pixels."""


class Streamed:
    """A source that reads a verified set again in every epoch. Steps are fast in their order, slow in any other.

    Every rank reads all shards, and decodes of them the patches that it needs.
    """

    def __init__(
        self,
        patchset: PatchSet,
        order: WindowOrder,
        workers: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self._patchset, self._workers, self.device, self.ranks = patchset, workers, device, ranks
        self.order = order
        self._windows: dict[Place, Tensor] = {}
        self._reader: _Reader | None = None

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self._patchset.manifest.size

    def images(self, step: int) -> Tensor:
        """As ``Source.images``.

        Raises:
            DistillError: a member is not the image the manifest promises.
        """
        pieces = self.order.pieces(step, self.ranks)
        wanted = [place for place, _ in pieces]
        self._windows = {place: pixels for place, pixels in self._windows.items() if place in wanted}
        for place in wanted:
            if place not in self._windows:
                self._windows[place] = self._read(place)
        images = torch.cat([self._windows[place][rows] for place, rows in pieces])
        return images.to(self.device, non_blocking=True)

    def close(self) -> None:
        """End the processes and the thread that read ahead."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, place: Place) -> Tensor:
        if self._reader is None or self._reader.next != place:
            self.close()
            self._reader = _Reader(self._patchset, self.order, self._workers, self.ranks, place)
        return self._reader.take()


class _Reader:
    """Windows from ``first`` on, one ahead of what was taken."""

    def __init__(self, patchset: PatchSet, order: WindowOrder, workers: int, ranks: Ranks, first: Place) -> None:
        self.next = first
        self._patchset, self._order, self._ranks = patchset, order, ranks
        self._ready: queue.Queue[Tensor | BaseException] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        count = min(workers, len(patchset.manifest.shards), usable_cores())
        loader = DataLoader(
            _Shards(patchset, order, ranks, first),
            batch_size=None,
            num_workers=count,
            worker_init_fn=ignore_signals,
            collate_fn=_as_it_is,  # torch's own makes lists of tuples
            multiprocessing_context="fork" if count else None,
        )
        self._chunks = iter(loader)  # starts the processes, in this thread
        self._thread = threading.Thread(target=self._collect, args=(first,), daemon=True)
        self._thread.start()

    def take(self) -> Tensor:
        """The next window: uint8 (rows, size, size, 3), of which this rank's rows are set."""
        with tar_errors(self._patchset):  # torch raises in the main thread, wherever it is, when a process dies
            window = self._ready.get()
        if isinstance(window, BaseException):
            raise window
        self.next = self._order.after(self.next)
        return window

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)  # the thread may wait for room
            except queue.Empty:
                continue
        self._thread.join()

    def _collect(self, place: Place) -> None:
        early: list[Chunk] = []  # of windows behind the present one, from a process that is ahead
        with ended(self._chunks):
            try:
                while not self._closed.is_set():
                    window, early = self._window(place, early)
                    self._ready.put(window)
                    place = self._order.after(place)
            except BaseException as error:  # noqa: BLE001 - it is raised where the window is taken
                self._ready.put(error)

    def _window(self, place: Place, chunks: list[Chunk]) -> tuple[Tensor, list[Chunk]]:
        """A whole window, out of ``chunks`` and those that come, and the chunks that are of later ones."""
        manifest = self._patchset.manifest
        sizes = [manifest.shards[number].n for number in self._order.shards(place)]
        firsts = np.cumsum([0, *sizes])
        pixels = torch.empty((int(firsts[-1]), manifest.size, manifest.size, 3), dtype=torch.uint8)
        seen = ~self._order.wanted(place, self._ranks)
        later: list[Chunk] = []
        pending = iter(chunks)
        while not bool(seen.all()) and not self._closed.is_set():
            chunk = next(pending, None) or self._next_chunk()
            if chunk[0] != place:
                later.append(chunk)
                continue
            _, part, rows, images = chunk
            at = rows + int(firsts[part])
            if bool(seen[at].any()):
                raise DistillError(f"{self._patchset.folder}: a member's key stands twice; get the set again")
            pixels[at], seen[at] = images, True
        return pixels, [*later, *pending]

    def _next_chunk(self) -> Chunk:
        with tar_errors(self._patchset):
            chunk = next(self._chunks)
        if isinstance(chunk, str):
            raise DistillError(f"{chunk}; get the set again")
        return chunk


def _as_it_is(chunk: Any) -> Any:
    return chunk


class _Shards(IterableDataset[Any]):
    """Chunks of the shards of window after window, without end; each process has its share of the shards."""

    def __init__(self, patchset: PatchSet, order: WindowOrder, ranks: Ranks, first: Place) -> None:
        self._patchset, self._order, self._ranks, self._first = patchset, order, ranks, first

    def __iter__(self) -> Iterator[Chunk | str]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        place, turn = self._first, 0
        while True:
            for part, number in enumerate(self._order.shards(place)):
                if turn % workers == worker:
                    yield from self._shard(place, part, number, self._wanted(place, part))
                turn += 1
            place = self._order.after(place)

    def _wanted(self, place: Place, part: int) -> Tensor:
        """Which patches of a shard this rank needs: bool (patches)."""
        sizes = [self._patchset.manifest.shards[number].n for number in self._order.shards(place)]
        return self._order.wanted(place, self._ranks).split(sizes)[part]

    def _shard(self, place: Place, part: int, number: int, wanted: Tensor) -> Iterator[Chunk | str]:
        manifest = self._patchset.manifest
        shard = manifest.shards[number]
        span = range(shard.first_index, shard.first_index + shard.n)
        decode = partial(decode_sample, span=span, image_format=manifest.encoding.format, size=manifest.size)
        path: Path = self._patchset.shard_path(shard)
        rows: list[int] = []
        images: list[Pixels] = []
        count = 0
        for sample in read_samples([path], split=False):
            key = str(sample["__key__"])
            if key.isdecimal() and int(key) in span and not wanted[int(key) - shard.first_index]:
                count += 1
                continue
            decoded = decode(sample)
            if isinstance(decoded, str):
                yield decoded
                return
            rows.append(decoded[0] - shard.first_index)
            images.append(decoded[1])
            count += 1
            if len(rows) == chunk_of(manifest.size):
                yield place, part, torch.tensor(rows), torch.from_numpy(np.stack(images))
                rows, images = [], []
        if rows:
            yield place, part, torch.tensor(rows), torch.from_numpy(np.stack(images))
        if count != shard.n:
            yield f"{path}: holds {counted(count, 'patch')}, the manifest says {shard.n}"
