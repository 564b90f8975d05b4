"""One file from elsewhere: asked for again where it was cut, hashed as it comes, kept only if it is the right one."""

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from manifests.errors import PassingError, PatchSetError
from manifests.remote.transfers import Channel
from manifests.remote.urls import Place
from manifests.support.counts import counted
from manifests.support.files import PART_PREFIX, is_plain

ATTEMPTS = 5
"""Times in a row that a file is asked for in vain."""
BUSY_ATTEMPTS = 10
"""The same, of a server that says it is busy: a thousand readers may have begun at once, and each gets its turn."""
PAUSE = 0.5
"""Seconds before the second of them, and up to twice as many; twice as long before each that follows."""
LONGEST_PAUSE = 30.0
ENOUGH = 1 << 14
"""Bytes that make an attempt one that was not in vain, if none came as far before."""
WHOLE_SECONDS = 900.0
"""Seconds after which a small file must be there."""
AGAIN = "; try again later"
_BLOCK = 1 << 20


class WrongFileError(PatchSetError):
    """A file elsewhere is another one than it should be."""


class _OtherBytesError(Exception):
    """What is sent cannot be the file; the message says why."""


def read_whole(place: Place, name: str, limit: int, channel: Channel) -> bytes:
    """A small file of unknown length, at most ``limit`` bytes of it.

    Raises:
        PatchSetError: it cannot be had, or is longer.
    """
    failures, end = 0, time.monotonic() + WHOLE_SECONDS
    while True:
        try:
            return _read_once(place, name, limit, end)
        except PassingError as error:
            failures += 1
            wait_again(failures, error, channel)


def _read_once(place: Place, name: str, limit: int, end: float) -> bytes:
    answer = place.open(name, 0)
    data = bytearray()
    while True:
        if max(len(data), answer.total or 0) > limit:
            raise PatchSetError(f"{place.shown(name)}: more than {limit} bytes, no such file of a set has more")
        if time.monotonic() > end:
            raise PatchSetError(f"{place.shown(name)}: not there after {WHOLE_SECONDS:g} s; try again later")
        piece = next(answer.pieces, None)
        if piece is None:
            break
        data += piece
    if answer.total not in (None, len(data)):
        raise PassingError(
            f"{place.shown(name)}: cut off after {len(data)} of {counted(answer.total, 'byte')}; try again later"
        )
    return bytes(data)


def wait_again(failures: int, error: PassingError, channel: Channel) -> None:
    """Pause before the next attempt, as long as a server told at least, and by chance longer.

    A server that turns many readers away at once must not have all of them back at once.

    Raises:
        PassingError: there were enough of them.
    """
    if failures >= (BUSY_ATTEMPTS if error.busy else ATTEMPTS):
        raise error
    if failures == 1:
        soon = f" in {error.after:g} s" if error.after else ""
        told = str(error).removesuffix(AGAIN)
        channel.note(f"{told}{':' if told == str(error) else ';'} trying again{soon}")
    pause = min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE) if failures else 0.0
    channel.pause(max(error.after, pause) + random.uniform(0, pause))  # noqa: S311 - hides nothing


def part_of(folder: Path, name: str) -> Path:
    """Where a file lies until it is whole: what an interrupted download leaves, and the next one goes on from."""
    return folder / f"{PART_PREFIX}{name}"


class _Taken:
    """What has come of a file of ``size`` bytes: hashed, and kept where there is a file for it."""

    def __init__(self, size: int, channel: Channel, file: BinaryIO | None = None) -> None:
        self.size, self.channel, self.file = size, channel, file
        self.state, self.have = hashlib.sha256(), 0
        if file is None:
            return
        if file.seek(0, os.SEEK_END) > size:
            file.truncate(0)
        file.seek(0)
        while block := file.read(_BLOCK):  # what an interrupted download left
            self.state.update(block)
        self.have = file.tell()
        channel.count(self.have)

    def add(self, piece: bytes, at: int) -> None:
        """Take a piece that begins at byte ``at``: behind what there is, or, where all is sent anew, at 0."""
        self.channel.check()
        if at != self.have:
            if self.file is not None:
                self.file.seek(0)
                self.file.truncate()
            self.channel.count(-self.have)
            self.state, self.have = hashlib.sha256(), 0
        if self.have + len(piece) > self.size:
            raise _OtherBytesError(f"more than the {counted(self.size, 'byte')} that the manifest says")
        if self.file is not None:
            self.file.write(piece)
        self.state.update(piece)
        self.have += len(piece)
        self.channel.count(len(piece))


def download(place: Place, name: str, size: int, sha256: str, folder: Path, channel: Channel) -> None:
    """Bring a file of ``size`` bytes into ``folder``. What comes with another digest is fetched once more.

    Raises:
        PatchSetError: it cannot be had, or is another one than it should be.
        OSError: it cannot be written.
        Stopped: no more is wanted; what there is stays, to go on from.
    """
    part = part_of(folder, name)

    def receive() -> str:
        if not is_plain(part):
            part.unlink(missing_ok=True)
        with part.open("a+b") as file:
            found = _receive(place, name, _Taken(size, channel, file))
            file.flush()
            os.fsync(file.fileno())
        return found

    def drop() -> None:
        channel.count(-part.stat().st_size)
        part.unlink()

    _receive_right(place, name, sha256, channel, receive, drop)
    part.replace(folder / name)


def prove(place: Place, name: str, size: int, sha256: str, channel: Channel) -> None:
    """Read a file of a place and keep nothing of it; as ``download`` but for that."""
    taken = _Taken(size, channel)

    def receive() -> str:
        return _receive(place, name, taken)

    def drop() -> None:
        nonlocal taken
        channel.count(-taken.have)
        taken = _Taken(size, channel)

    _receive_right(place, name, sha256, channel, receive, drop)


def _receive_right(
    place: Place, name: str, sha256: str, channel: Channel, receive: Callable[[], str], drop: Callable[[], None]
) -> None:
    """Receive a file, and once more where it is a wrong one; ``drop`` does away with that."""
    for again in (False, True):
        try:
            found = receive()
            wrong = f"sha256 is {found}, the manifest says {sha256}"
        except _OtherBytesError as error:
            found, wrong = "", str(error)
        if found == sha256:
            return
        drop()
        if not again:
            channel.note(f"{place.shown(name)}: {wrong}; fetching it once more")
    raise WrongFileError(
        f"{place.shown(name)}: {wrong}, twice over: the file there is not the set's; tell whoever published it"
    )


def _receive(place: Place, name: str, taken: _Taken) -> str:
    """Take all of a file's bytes; their digest as hex."""
    failures, most = 0, taken.have
    while taken.have < taken.size:
        try:
            answer = place.open(name, taken.have)
            if answer.total not in (None, taken.size):  # what has come stays: this may be a busy server's page
                raise PassingError(
                    f"{place.shown(name)}: {counted(answer.total, 'byte')}, the manifest says {taken.size}; tell "
                    "whoever published it, or try again later"
                )
            at = answer.start
            for piece in answer.pieces:
                taken.add(piece, at)
                at = taken.have
            if taken.have < taken.size:
                raise PassingError(
                    f"{place.shown(name)}: cut off after {taken.have} of {counted(taken.size, 'byte')}; try "
                    "again later"
                )
        except PassingError as error:
            failures = 0 if taken.have - most >= ENOUGH else failures + 1
            most = max(most, taken.have)
            wait_again(failures, error, taken.channel)
    return str(taken.state.hexdigest())
