"""Read patch sets that are larger than memory. Every epoch reads the shards again, in windows of several shards."""

from collections import deque
from concurrent.futures import Future

import torch
from torch import Tensor

from distill.data.decode import Workers, decode_shard, shared_memory, useful_workers
from distill.data.sampler import Place, WindowOrder
from distill.runtime.distributed import RunContext
from manifests import PatchSet

WINDOWS = 3  # windows in memory: one in use, and those that processes decode ahead


class Streamed:
    """The images of a verified patch set, decoded again in every epoch. Steps are fast only in increasing order.

    Every rank reads all shards with ``workers`` processes, but decodes only the patches that the rank uses.
    """

    def __init__(self, patchset: PatchSet, order: WindowOrder, workers: int, context: RunContext) -> None:
        self.order, self.context, self._patchset = order, context, patchset
        self.size = patchset.manifest.size
        self._slots = shared_memory((WINDOWS, order.largest_window, self.size, self.size, 3))
        self._queue: deque[tuple[Place, int, list[Future[None]]]] = deque()  # windows, their slots and their jobs
        self._workers = Workers(useful_workers(patchset, workers), self._decode)

    def images(self, step: int) -> Tensor:
        """Return the images of ``step`` that belong to this rank: uint8 (B, size, size, 3) on the run's device."""
        pieces = self.order.pieces(step, self.context.ranks)
        images = torch.cat([self._window(place)[rows] for place, rows in pieces])
        return images.to(self.context.device, non_blocking=True)

    def close(self) -> None:
        """Stop the processes that decode shards."""
        self._workers.close()

    def _window(self, place: Place) -> Tensor:
        """Return the pixels of a window: uint8 (rows, size, size, 3). Only rows that this rank uses are decoded."""
        while self._queue and self._queue[0][0] != place:
            for future in self._queue.popleft()[2]:
                if not future.cancel():
                    future.exception()  # wait: the slot is used again
        following = self.order.after(self._queue[-1][0]) if self._queue else place
        for slot in sorted(set(range(WINDOWS)) - {used for _, used, _ in self._queue}):
            jobs = [(following, slot, part) for part in range(len(self.order.shards(following)))]
            self._queue.append((following, slot, [self._workers.submit(job) for job in jobs]))
            following = self.order.after(following)
        _, slot, futures = self._queue[0]
        for future in futures:
            future.result()
        return torch.from_numpy(self._slots[slot])

    def _decode(self, job: tuple[Place, int, int]) -> None:
        """Decode the patches that this rank uses from one shard of a window. A worker process calls this method."""
        place, slot, part = job
        numbers = self.order.shards(place)
        sizes = [self._patchset.manifest.shards[number].n for number in numbers]
        wanted = self.order.wanted(place, self.context.ranks).split(sizes)[part].numpy()
        window = self._slots[slot, sum(sizes[:part]) :]
        for row, patch in decode_shard(self._patchset, numbers[part], wanted):
            window[row] = patch
