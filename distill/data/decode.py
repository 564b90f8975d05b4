"""Decode verified shards into one uint8 array, with several processes that write into the array.

Each decoding process is forked from this process. One thread for each decoding process sends jobs through a pipe. The
array is in memory that was mapped before the fork. So the processes need no lock and no file in ``/dev/shm``, which a
container may lack. When a decoding process ends, the pipe closes, and the thread raises an error.
"""

import contextlib
import gc
import math
import mmap
import os
import queue
import re
import signal
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from webdataset.tariterators import group_by_keys, tar_file_expander

from distill.errors import DistillError
from manifests import PatchSet
from manifests.errors import PatchSetError
from manifests.support.console import counting, progress_bar
from manifests.support.processes import die_with_parent, starting_processes, usable_cores
from manifests.untrusted.images import decode_patch

GRACE_SECONDS = 5.0  # longest wait for a killed process to end
_CAUSES = {
    signal.SIGKILL: "because memory ran out; use fewer data.workers",
    signal.SIGBUS: "because the disk of data.cache_dir is full or missing; choose another data.cache_dir",
}
_RETRY = "by another program; run the same command again"
_FORK = get_context("fork")

Pixels = npt.NDArray[np.uint8]


def shape_of(patchset: PatchSet) -> tuple[int, int, int, int]:
    """Return the shape of a decoded patch set: (n, size, size, 3)."""
    manifest = patchset.manifest
    return manifest.n, manifest.size, manifest.size, 3


def shared_memory(shape: tuple[int, ...]) -> Pixels:
    """Return an empty array in memory that this process shares with processes forked later."""
    return np.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=np.uint8).reshape(shape)


def file_memory(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create a file, and return an empty array that is mapped to the file and shared with processes forked later."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):  # fails if the disk is too full; a write to the mapping would kill us
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        else:  # macOS
            file.truncate(math.prod(shape))
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)


def useful_workers(patchset: PatchSet, workers: int) -> int:
    """Return the smallest of ``workers``, the number of shards and the number of usable cores."""
    return min(workers, len(patchset.manifest.shards), usable_cores())


def decode_into(images: Pixels, patchset: PatchSet, workers: int) -> None:
    """Decode a verified patch set with ``workers`` processes. Patch i is written to row i of ``images``.

    ``images`` must be from ``shared_memory`` or ``file_memory``, because the processes write into ``images``.
    """
    shards = patchset.manifest.shards

    def decode(number: int) -> None:
        for row, patch in decode_shard(patchset, number):
            images[shards[number].first_index + row] = patch

    pool = contextlib.closing(Workers(useful_workers(patchset, workers), decode))
    with pool as opened, progress_bar("decoding patches", patchset.manifest.n) as update:
        on_patches = counting(update)
        sizes = {opened.submit(number): shard.n for number, shard in enumerate(shards)}
        for future in as_completed(sizes):
            future.result()
            on_patches(sizes[future])


def decode_shard(
    patchset: PatchSet, number: int, wanted: npt.NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, Pixels]]:
    """Decode shard ``number`` of a verified patch set. Yield for each patch its row in the shard and its pixels.

    ``wanted``, bool (patches of the shard), selects rows. None selects all rows.
    """
    manifest = patchset.manifest
    shard = manifest.shards[number]
    path = patchset.shard_path(shard)
    seen = np.zeros(shard.n, np.bool_)
    with _tar_errors(path), path.open("rb") as stream:  # a plain file: never a URL or a command to WebDataset
        for sample in group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}])):
            key = str(sample["__key__"])
            row = int(key) - shard.first_index if re.fullmatch(r"[0-9]{9,10}", key) else -1
            if not 0 <= row < shard.n or seen[row]:
                problem = "belongs to two tar members" if 0 <= row < shard.n else "is not a patch index of this shard"
                raise DistillError(f"{path}: the key {key} {problem}; {_DAMAGED}")
            seen[row] = True
            if wanted is None or wanted[row]:
                yield row, decode_sample(sample, manifest.encoding.format, manifest.size)
    if not seen.all():
        raise DistillError(f"{path}: has {seen.sum()} patches, but the manifest declares {shard.n}; {_DAMAGED}")


_DAMAGED = "the patch set is corrupt; download it again"


@contextlib.contextmanager
def _tar_errors(path: Path) -> Iterator[None]:
    """Convert an error that occurs while reading a shard to a DistillError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise DistillError(f"{path}: cannot be read: {reason}; check the disk, or download the set again") from error
    except (tarfile.TarError, ValueError) as error:
        reason = str(next(iter(error.args), type(error).__name__)).split(" @ ")[0]  # WebDataset adds the open file
        raise DistillError(f"{path}: is not a valid tar file: {reason}; {_DAMAGED}") from error
    except MemoryError as error:
        raise DistillError(f"{path}: decoding needs more memory than is free; set fewer data.workers") from error


def decode_sample(sample: dict[str, Any], image_format: str, size: int) -> Pixels:
    """Decode a WebDataset sample that must be one image of ``image_format``: uint8 (size, size, 3)."""
    where = f"{sample['__url__']}: member {sample['__key__']}"
    fields = [name for name in sample if not name.startswith("__")]
    if fields != [image_format]:
        found = f"has files of the types {', '.join(fields)}, but the manifest declares one {image_format} file"
        raise DistillError(f"{where}: {found}; {_DAMAGED}")
    try:
        return decode_patch(sample[image_format], where, size, image_format)
    except PatchSetError as error:
        raise DistillError(str(error)) from error


class Workers:
    """A pool of ``count`` processes that call ``work`` with each job. If ``count`` is 0, a thread calls ``work``."""

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
        """Start a job and return a future. The future raises DistillError if ``work`` fails or a process ends."""
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
        return DistillError(f"a decoding process ended with status {status}; report this error to the developers")
    number = signal.Signals(-status)
    return DistillError(f"a decoding process was killed by {number.name}, probably {_CAUSES.get(number, _RETRY)}")


def _serve(end: Connection, work: Callable[[Any], None]) -> None:
    """Run a decoding process: receive jobs from the pipe ``end``, call ``work``, and reply with the error or None."""
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
