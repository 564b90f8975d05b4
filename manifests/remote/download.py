"""Receive one remote file: resume it where a connection was cut, and hash it as it arrives."""

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from manifests.errors import PatchSetError
from manifests.remote.store import RemoteStream, ShardStore, TemporaryError
from manifests.remote.transfers import Channel
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, is_plain

ATTEMPTS = 5  # unsuccessful attempts in a row after which a file is given up
PAUSE = 0.5  # seconds before the second attempt, up to twice as many at random; doubled for each further attempt
LONGEST_PAUSE = 30.0
PROGRESS_BYTES = 1 << 14  # new bytes that make an attempt a successful one, although the connection was cut
SLOW_BYTES, SLOW_SECONDS = 60_000, 60.0  # a server must send so many bytes in so many seconds
_RETRY_ADVICE = "; try again later"
_BLOCK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SetFile:
    """A file of a set: its name, size and SHA-256."""

    name: str
    num_bytes: int
    sha256: str


class WrongFileError(PatchSetError):
    """A remote file is not the one that the manifest describes."""


def read_small_file(store: ShardStore, name: str, limit: int, channel: Channel) -> bytes:
    """Return the content of a remote file, which is refused if it has more than ``limit`` bytes."""
    return retry(partial(_read_once, store, name, limit), channel)


def retry(action: Callable[[], T], channel: Channel) -> T:
    """Return the result of ``action``, which is called again after temporary errors, at most ``ATTEMPTS`` times."""
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
    with contextlib.closing(_paced(stream, where)) as chunks:
        is_small = (stream.total or 0) <= limit
        while is_small and (chunk := next(chunks, b"")):
            data += chunk
            is_small = len(data) <= limit
    if not is_small:
        raise PatchSetError(f"{where}: more than {limit} bytes, which no such file of a set has")
    if stream.total not in (None, len(data)):
        raise TemporaryError(f"{where}: cut off after {len(data)} of {counted(stream.total, 'byte')}{_RETRY_ADVICE}")
    return bytes(data)


def _paced(stream: RemoteStream, where: str) -> Generator[bytes, None, None]:
    """Yield the chunks of a stream; raise ``TemporaryError`` if fewer than SLOW_BYTES arrive in SLOW_SECONDS."""
    begin, num_bytes = time.monotonic(), 0
    with contextlib.closing(stream.chunks) as chunks:
        for chunk in chunks:
            yield chunk
            num_bytes += len(chunk)
            if num_bytes >= SLOW_BYTES:
                begin, num_bytes = time.monotonic(), 0
            elif time.monotonic() - begin > SLOW_SECONDS:
                slow = f"less than {SLOW_BYTES} bytes in {SLOW_SECONDS:g} s"
                raise TemporaryError(f"{where}: the server is too slow: {slow}{_RETRY_ADVICE}")


def _pause_or_raise(failures: int, error: TemporaryError, channel: Channel) -> None:
    """Wait before the next attempt; raise ``error`` if there were ``ATTEMPTS`` failures in a row.

    The wait is at least as long as the server demands, and random: a busy server must not get all its readers back
    at the same moment.
    """
    if failures >= ATTEMPTS:
        raise error
    if failures == 1:
        wait = f" in {error.wait_seconds:g} s" if error.wait_seconds else ""
        channel.note(f"{str(error).removesuffix(_RETRY_ADVICE)}; trying again{wait}")
    pause = min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE) if failures else 0.0
    channel.pause(max(error.wait_seconds, pause) + random.uniform(0, pause))  # noqa: S311 - no secret


def part_path(folder: Path, name: str) -> Path:
    """Return where an incomplete download of a file lies; the next download resumes it."""
    return folder / f"{PART_PREFIX}{name}"


def download(store: ShardStore, file: SetFile, folder: Path, channel: Channel) -> None:
    """Download a file into ``folder``; a file with a wrong digest is downloaded once more.

    What has arrived when the job is stopped is kept, and resumed next time.
    """
    part = part_path(folder, file.name)
    if not is_plain(part):
        part.unlink(missing_ok=True)
    try:
        with part.open("a+b") as sink:
            _receive_right_file(store, file, sink, channel)
            sink.flush()
            os.fsync(sink.fileno())
    except WrongFileError:
        part.unlink()
        raise
    part.replace(folder / file.name)


def verify_remote(store: ShardStore, file: SetFile, channel: Channel) -> None:
    """Read a remote file and check its digest, without keeping it; otherwise as ``download``."""
    _receive_right_file(store, file, None, channel)


class _Received:
    """The first ``have`` bytes of a file: hashed, and written to ``sink`` if there is one."""

    def __init__(self, size: int, sink: BinaryIO | None, channel: Channel) -> None:
        self._size, self._sink, self._channel = size, sink, channel
        self.have, self.digest = 0, hashlib.sha256()
        if sink is None:
            return
        if sink.seek(0, os.SEEK_END) > size:
            sink.truncate(0)
        sink.seek(0)
        while block := sink.read(_BLOCK):  # of an interrupted download
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
            raise WrongFileError(f"more than the {counted(self._size, 'byte')} that the manifest says")
        if self._sink is not None:
            self._sink.write(chunk)
        self.digest.update(chunk)
        self.have += len(chunk)
        self._channel.count(len(chunk))


def _receive_right_file(store: ShardStore, file: SetFile, sink: BinaryIO | None, channel: Channel) -> None:
    """Receive a file into ``sink``, or only hash it; a second time if its digest is wrong."""
    where, received = store.display(file.name), _Received(file.num_bytes, sink, channel)
    for is_last in (False, True):
        try:
            _receive(store, file, received, channel)
            if (found := received.digest.hexdigest()) == file.sha256:
                return
            fault = f"sha256 is {found}, the manifest says {file.sha256}"
        except WrongFileError as error:
            fault = str(error)
        received.restart()
        if not is_last:
            channel.note(f"{where}: {fault}; fetching it once more")
    raise WrongFileError(f"{where}: {fault}, twice: it is not the file of this set; report it to the publisher")


def _receive(store: ShardStore, file: SetFile, received: _Received, channel: Channel) -> None:
    """Receive all bytes of a file, with as many requests as it takes."""
    where, expected = store.display(file.name), file.num_bytes
    failures, most = 0, received.have
    while received.have < expected:
        try:
            stream = store.open(file.name, received.have)
            with contextlib.closing(_paced(stream, where)) as chunks:
                if stream.total not in (None, expected):  # what arrived is kept: it may be a page of a busy server
                    raise TemporaryError(
                        f"{where}: {counted(stream.total, 'byte')}, the manifest says {expected}; report it to the "
                        "publisher, or try again later"
                    )
                if stream.start != received.have:
                    received.restart()
                for chunk in chunks:
                    received.add(chunk)
            if received.have < expected:
                cut = f"cut off after {received.have} of {counted(expected, 'byte')}"
                raise TemporaryError(f"{where}: {cut}{_RETRY_ADVICE}")
        except TemporaryError as error:
            failures = 0 if received.have - most >= PROGRESS_BYTES else failures + 1
            most = max(most, received.have)
            _pause_or_raise(failures, error, channel)
