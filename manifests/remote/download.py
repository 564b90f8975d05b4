"""Receive one remote file: resume it where a connection was cut, and hash it as it arrives."""

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from manifests.errors import PatchSetError
from manifests.remote.store import ShardStore, TemporaryError
from manifests.remote.transfers import Channel
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, is_plain

ATTEMPTS = 5
"""Unsuccessful attempts in a row after which a file is given up."""
PAUSE = 0.5
"""Seconds before the second attempt, up to twice as many at random; doubled for each further attempt."""
LONGEST_PAUSE = 30.0
PROGRESS_BYTES = 1 << 14
"""New bytes that make an attempt a successful one, although the connection was cut."""
SLOW_BYTES, SLOW_SECONDS = 60_000, 60.0
"""A server must send so many bytes in so many seconds."""
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


class _WrongSizeError(Exception):
    """More bytes arrive than the file has; the message says how many it has."""


def read_small_file(store: ShardStore, name: str, limit: int, channel: Channel) -> bytes:
    """Return the content of a remote file of at most ``limit`` bytes.

    Raises:
        PatchSetError: the file cannot be read, or is larger.
    """
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
    stream, pace = store.open(name), _Pace(where)
    too_large = PatchSetError(f"{where}: more than {limit} bytes, which no such file of a set has")
    with contextlib.closing(stream.chunks) as chunks:
        if (stream.total or 0) > limit:
            raise too_large
        for chunk in chunks:
            data += chunk
            if len(data) > limit:
                raise too_large
            pace.add(len(chunk))
    if stream.total not in (None, len(data)):
        raise TemporaryError(f"{where}: cut off after {len(data)} of {counted(stream.total, 'byte')}{_RETRY_ADVICE}")
    return bytes(data)


class _Pace:
    """Bounds how slowly a server may send."""

    def __init__(self, where: str) -> None:
        self._where, self._begin, self._num_bytes = where, time.monotonic(), 0

    def add(self, num_bytes: int) -> None:
        """Count bytes that arrived.

        Raises:
            TemporaryError: fewer than ``SLOW_BYTES`` arrived in ``SLOW_SECONDS``.
        """
        self._num_bytes += num_bytes
        if self._num_bytes >= SLOW_BYTES:
            self._begin, self._num_bytes = time.monotonic(), 0
        elif time.monotonic() - self._begin > SLOW_SECONDS:
            raise TemporaryError(
                f"{self._where}: the server is too slow: less than {SLOW_BYTES} bytes in {SLOW_SECONDS:g} s"
                + _RETRY_ADVICE
            )


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

    Raises:
        PatchSetError: the file cannot be read, or is a wrong one.
        OSError: the file cannot be written.
        Stopped: the job must end; what has arrived is kept and resumed next time.
    """
    part = part_path(folder, file.name)
    _receive_right_file(store, file, part, channel)
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
        """Forget all bytes."""
        if self._sink is not None:
            self._sink.seek(0)
            self._sink.truncate()
        self._channel.count(-self.have)
        self.have, self.digest = 0, hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        """Append bytes."""
        self._channel.check()
        if self.have + len(chunk) > self._size:
            raise _WrongSizeError(f"more than the {counted(self._size, 'byte')} that the manifest says")
        if self._sink is not None:
            self._sink.write(chunk)
        self.digest.update(chunk)
        self.have += len(chunk)
        self._channel.count(len(chunk))


def _receive_right_file(store: ShardStore, file: SetFile, part: Path | None, channel: Channel) -> None:
    """Receive a file into ``part``, or only hash it; a second time if its digest is wrong."""
    where = store.display(file.name)
    if part is not None and not is_plain(part):
        part.unlink(missing_ok=True)
    for attempt in (1, 2):
        with contextlib.nullcontext() if part is None else part.open("a+b") as sink:
            received = _Received(file.num_bytes, sink, channel)
            try:
                _receive(store, file, received, channel)
                found = received.digest.hexdigest()
                fault = f"sha256 is {found}, the manifest says {file.sha256}"
            except _WrongSizeError as error:
                found, fault = "", str(error)
            if found == file.sha256:
                if sink is not None:
                    sink.flush()
                    os.fsync(sink.fileno())
                return
            received.restart()
        if attempt == 1:
            channel.note(f"{where}: {fault}; fetching it once more")
    if part is not None:
        part.unlink()
    raise WrongFileError(f"{where}: {fault}, twice: it is not the file of this set; report it to the publisher")


def _receive(store: ShardStore, file: SetFile, received: _Received, channel: Channel) -> None:
    """Receive all bytes of a file, with as many requests as it takes."""
    where = store.display(file.name)
    failures, most = 0, received.have
    while received.have < file.num_bytes:
        try:
            stream = store.open(file.name, received.have)
            with contextlib.closing(stream.chunks) as chunks:
                if stream.total not in (
                    None,
                    file.num_bytes,
                ):  # keep what has come: it may be a page of a busy server
                    raise TemporaryError(
                        f"{where}: {counted(stream.total, 'byte')}, the manifest says {file.num_bytes}; report it to "
                        "the publisher, or try again later"
                    )
                if stream.start != received.have:
                    received.restart()
                pace = _Pace(where)
                for chunk in chunks:
                    received.add(chunk)
                    pace.add(len(chunk))
            if received.have < file.num_bytes:
                raise TemporaryError(
                    f"{where}: cut off after {received.have} of {counted(file.num_bytes, 'byte')}{_RETRY_ADVICE}"
                )
        except TemporaryError as error:
            failures = 0 if received.have - most >= PROGRESS_BYTES else failures + 1
            most = max(most, received.have)
            _pause_or_raise(failures, error, channel)
