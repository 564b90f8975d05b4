"""Download one file: continue after a cut connection, and hash the bytes while they arrive."""

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from manifests.errors import PatchSetError
from manifests.format.schema import File
from manifests.remote.store import RemoteStream, ShardStore, TemporaryError
from manifests.remote.transfers import Channel
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, is_plain

ATTEMPTS = 5  # failed attempts in a row after which the download of a file fails
PAUSE = 0.5  # seconds before the second attempt, doubled before each further attempt; a random part is added
LONGEST_PAUSE = 30.0
PROGRESS_BYTES = 1 << 14  # an attempt with this many new bytes is no failure, although the connection was cut
SLOW_BYTES, SLOW_SECONDS = 60_000, 60.0  # a server must send at least these bytes in these seconds
_RETRY_ADVICE = "; try again later"
_BLOCK = 1 << 20
T = TypeVar("T")


class WrongFileError(PatchSetError):
    """A remote file differs from the file that the manifest declares."""


def read_small_file(store: ShardStore, name: str, limit: int, channel: Channel) -> bytes:
    """Return the content of a remote file of at most ``limit`` bytes. ``channel`` prints notes on retries."""
    return retry(partial(_read_once, store, name, limit), channel)


def retry(action: Callable[[], T], channel: Channel) -> T:
    """Return the result of ``action``. Repeat the call after a temporary error, at most ``ATTEMPTS`` times in all."""
    failures = 0
    while True:
        channel.check()
        try:
            return action()
        except TemporaryError as error:
            failures += 1
            _pause_or_raise(failures, error, channel)


def _read_once(store: ShardStore, name: str, limit: int) -> bytes:
    where, data = store.display(name), bytearray()
    stream = store.open(name)
    with contextlib.closing(stream):
        chunks, is_small = _paced(stream, where), (stream.total or 0) <= limit
        while is_small and (chunk := next(chunks, b"")):
            data += chunk
            is_small = len(data) <= limit
    if not is_small:
        what = f"the file is too large, expected at most {limit} bytes"
        raise PatchSetError(f"{where}: {what}; report this to the publisher of the set")
    if stream.total not in (None, len(data)):
        cut = f"the connection was cut after {len(data)} of {counted(stream.total, 'byte')}"
        raise TemporaryError(f"{where}: {cut}{_RETRY_ADVICE}")
    return bytes(data)


def _paced(stream: RemoteStream, where: str) -> Generator[bytes, None, None]:
    """Yield the chunks of a stream. Raise ``TemporaryError`` if fewer than SLOW_BYTES arrive in SLOW_SECONDS."""
    begin, num_bytes = time.monotonic(), 0
    for chunk in stream.chunks:
        yield chunk
        num_bytes += len(chunk)
        if num_bytes >= SLOW_BYTES:
            begin, num_bytes = time.monotonic(), 0
        elif time.monotonic() - begin > SLOW_SECONDS:
            slow = f"less than {SLOW_BYTES} bytes in {SLOW_SECONDS:g} s"
            raise TemporaryError(f"{where}: the server is too slow: {slow}{_RETRY_ADVICE}")


def _pause_or_raise(failures: int, error: TemporaryError, channel: Channel) -> None:
    """Raise ``error`` after ``ATTEMPTS`` failures in a row. Otherwise wait before the next attempt.

    The wait is at least as long as the server demands. A random part is added, so that the clients of a busy server
    do not all repeat their requests at the same moment.
    """
    if failures >= ATTEMPTS:
        raise error
    if failures == 1:
        wait = f" in {error.wait_seconds:g} s" if error.wait_seconds else ""
        channel.note(f"{str(error).removesuffix(_RETRY_ADVICE)}; trying again{wait}")
    pause = min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE) if failures else 0.0
    channel.pause(max(error.wait_seconds, pause) + random.uniform(0, pause))  # noqa: S311 - no secret


def download(store: ShardStore, file: File, folder: Path, channel: Channel) -> None:
    """Download a file into ``folder``, and check its digest. If the digest is wrong, download the file once more.

    If the job is stopped, keep the received bytes. The next download of the file continues after the last byte.
    """
    part = folder / f"{PART_PREFIX}{file.name}"
    if not is_plain(part):
        part.unlink(missing_ok=True)
    try:
        with part.open("a+b") as sink:
            verify_remote(store, file, channel, sink)
            sink.flush()
            os.fsync(sink.fileno())
    except WrongFileError:
        part.unlink()
        raise
    part.replace(folder / file.name)


class _Received:
    """The hash and the number (``have``) of the received bytes of a file. Writes the bytes to ``sink``, if given."""

    def __init__(self, size: int, sink: BinaryIO | None, channel: Channel) -> None:
        self._size, self._sink, self._channel = size, sink, channel
        self.have, self.digest = 0, hashlib.sha256()
        if sink is None:
            return
        if sink.seek(0, os.SEEK_END) > size:
            sink.truncate(0)
        sink.seek(0)
        while block := sink.read(_BLOCK):  # the bytes of an interrupted download
            self.digest.update(block)
        self.have = sink.tell()
        channel.count(self.have)

    def restart(self) -> None:
        if self._sink is not None:
            self._sink.truncate(0)
        self._channel.count(-self.have)
        self.have, self.digest = 0, hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        self._channel.check()
        if self.have + len(chunk) > self._size:
            raise WrongFileError(f"the file has more than the {self._size} bytes that the manifest declares")
        if self._sink is not None:
            self._sink.write(chunk)
        self.digest.update(chunk)
        self.have += len(chunk)
        self._channel.count(len(chunk))


def verify_remote(store: ShardStore, file: File, channel: Channel, sink: BinaryIO | None = None) -> None:
    """Download a file into ``sink``, and check the digest. If the digest is wrong, download the file once more."""
    where, received = store.display(file.name), _Received(file.bytes, sink, channel)
    for is_last in (False, True):
        try:
            _receive(store, file, received, channel)
            if (found := received.digest.hexdigest()) == file.sha256:
                return
            fault = f"sha256 is {found}, the manifest declares {file.sha256}"
        except WrongFileError as error:
            fault = str(error)
        received.restart()
        if not is_last:
            channel.note(f"{where}: {fault}; downloading it once more")
    raise WrongFileError(f"{where}: {fault} (in two downloads); report this to the publisher of the set")


def _receive(store: ShardStore, file: File, received: _Received, channel: Channel) -> None:
    where, expected = store.display(file.name), file.bytes
    failures, most = 0, received.have
    while received.have < expected:
        try:
            stream = store.open(file.name, received.have)
            with contextlib.closing(stream):
                if stream.total not in (None, expected):  # it may be an error page, so received bytes are kept
                    what = f"the file has {counted(stream.total, 'byte')}, the manifest declares {expected}"
                    raise TemporaryError(f"{where}: {what}; try again later, or tell the publisher of the set")
                if stream.start != received.have:
                    received.restart()
                for chunk in _paced(stream, where):
                    received.add(chunk)
            if received.have < expected:
                cut = f"the connection was cut after {received.have} of {counted(expected, 'byte')}"
                raise TemporaryError(f"{where}: {cut}{_RETRY_ADVICE}")
        except TemporaryError as error:
            failures = 0 if received.have - most >= PROGRESS_BYTES else failures + 1
            most = max(most, received.have)
            _pause_or_raise(failures, error, channel)
