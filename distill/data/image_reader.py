"""Decode images one after the other, in threads and in order, without holding all of them in memory."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from distill.data.fit import Fit, ImageShapeError
from distill.errors import DistillError
from manifests.errors import PatchSetError
from manifests.foreign.image_files import StoredImage, pixels_of, read_stored
from manifests.format.digest import pixel_digest
from manifests.untrusted.decode import Pixels

T = TypeVar("T")
Work = Callable[[int, Pixels], T]  # is called with the position and the pixels of an image
AHEAD = 128
"""Images that are read before they are needed, so that threads decode while a network computes."""


class ImageReader(Protocol):
    """Read the images at ``positions``, in this order. Yield the results of ``work`` for each image."""

    def __call__(self, positions: Iterable[int], work: Work[T], /) -> Iterator[T]: ...


def in_threads(positions: Iterable[int], read: Callable[[int], Any], work: Callable[[int, Any], T]) -> Iterator[T]:
    """Yield ``work(k, read(k))`` for each position. ``read`` runs in this thread and in order, ``work`` in others."""
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor() as pool:
        try:
            for position in positions:
                pending.append(pool.submit(work, position, read(position)))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Add the name of an image to an ImageShapeError in the block."""
    try:
        yield
    except ImageShapeError as error:
        raise DistillError(f"{where}: {error}") from error


def stored_reader(images: Sequence[StoredImage]) -> ImageReader:
    """Return a reader of images in files, tars, tables and CIFAR's files."""

    def reader(positions: Iterable[int], work: Work[T], /) -> Iterator[T]:
        def decoded(position: int, content: bytes | Pixels) -> T:
            where = images[position].where
            with naming(where):
                return work(position, pixels_of(content, where))

        return in_threads(positions, lambda position: read_stored(images[position]), decoded)

    return reader


@contextlib.contextmanager
def read_errors(where: Path | str) -> Iterator[None]:
    """Convert an error that occurs while reading images in ``where`` to a DistillError of one line."""
    try:
        yield
    except PatchSetError as error:
        raise DistillError(str(error)) from error
    except OSError as error:
        reason = error.strerror or error
        raise DistillError(f"{error.filename or where}: cannot be read: {reason}; check its permissions") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamedImages:
    """Images that are decoded each time they are used."""

    reader: ImageReader
    fit: Fit | None  # resizes and crops each image to ``shape``; None if all images have this shape
    shape: tuple[int, ...]  # height, width and 3
    digests: tuple[bytes, ...]  # SHA-256 of each image's pixels before resizing
    where: Path | str  # path or description of the data, for messages

    def __len__(self) -> int:
        return len(self.digests)

    def read(self, positions: Sequence[int]) -> Iterator[Pixels]:
        """Yield the images at ``positions``: uint8 (H, W, 3). Raise DistillError if an image has changed."""

        def fitted(position: int, pixels: Pixels) -> Pixels:
            if pixel_digest(pixels) != self.digests[position]:
                found = f"image {position} has changed since the data was first read"
                raise DistillError(f"{self.where}: {found}; keep the data unchanged, and run the command again")
            return pixels if self.fit is None else self.fit(pixels)

        with read_errors(self.where):
            yield from self.reader(positions, fitted)
