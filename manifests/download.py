"""One file from elsewhere: asked for again where it was cut, hashed as it comes, kept only if it is the right one."""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from manifests.errors import PassingError, PatchSetError
from manifests.files import PART_PREFIX, is_plain
from manifests.transfers import Channel
from manifests.urls import Place

ATTEMPTS = 5
"""Times in a row that a file is asked for in vain."""
PAUSE = 0.5
"""Seconds before the second of them; twice as long before each that follows."""
ENOUGH = 1 << 14
"""Bytes that make an attempt one that was not in vain."""
_BLOCK = 1 << 20


class _WrongFileError(Exception):
    """What is sent cannot be the file; the message says why."""


def read_whole(place: Place, name: str, limit: int, channel: Channel) -> bytes:
    """A small file of unknown length, at most ``limit`` bytes of it.

    Raises:
        PatchSetError: it cannot be had, or is longer.
    """
    failures = 0
    while True:
        try:
            return _read_once(place, name, limit)
        except PassingError as error:
            failures += 1
            wait_again(failures, error, channel)


def _read_once(place: Place, name: str, limit: int) -> bytes:
    answer = place.open(name, 0)
    pieces, have = [], 0
    for piece in answer.pieces:
        pieces.append(piece)
        have += len(piece)
        if have > limit:
            raise PatchSetError(f"{place.shown(name)}: more than {limit} bytes, no such file of a set has more")
    if answer.total not in (None, have):
        raise PassingError(f"{place.shown(name)}: cut off after {have} of {answer.total} bytes; try again later")
    return b"".join(pieces)


def wait_again(failures: int, error: PassingError, channel: Channel) -> None:
    """Pause before the next attempt.

    Raises:
        PassingError: there were enough of them.
    """
    if failures >= ATTEMPTS:
        raise error
    if failures == 1:
        channel.note(f"{error}: trying again".replace("; try again later: trying", "; trying"))
    channel.pause(PAUSE * 2 ** (failures - 1) if failures else 0)


def part_of(folder: Path, name: str) -> Path:
    """Where a file lies until it is whole: what an interrupted download leaves, and the next one goes on from."""
    return folder / f"{PART_PREFIX}{name}"


def download(place: Place, name: str, size: int, sha256: str, folder: Path, channel: Channel) -> None:
    """Bring a file of ``size`` bytes into ``folder``. What comes with another digest is fetched once more.

    Raises:
        PatchSetError: it cannot be had, or is another one than it should be.
        OSError: it cannot be written.
        Stopped: no more is wanted; what there is stays, to go on from.
    """
    part = part_of(folder, name)
    for again in (False, True):
        if not is_plain(part):
            part.unlink(missing_ok=True)
        try:
            found = _receive(place, name, size, part, channel)
            wrong = f"sha256 is {found}, the manifest says {sha256}"
        except _WrongFileError as error:
            found, wrong = "", str(error)
        if found == sha256:
            part.replace(folder / name)
            return
        channel.count(-part.stat().st_size)
        part.unlink()
        if not again:
            channel.note(f"{place.shown(name)}: {wrong}; fetching it once more")
    raise PatchSetError(
        f"{place.shown(name)}: {wrong}, twice over: the file there is not the set's; tell whoever published it"
    )


def _receive(place: Place, name: str, size: int, part: Path, channel: Channel) -> str:
    """Fill ``part`` up to ``size`` bytes; the digest of all of them as hex."""
    failures = 0
    with part.open("a+b") as file:
        state = _hash_start(file, size)
        have = file.tell()
        channel.count(have)
        while have < size:
            before = have
            try:
                answer = place.open(name, have)
                if answer.total not in (None, size):
                    raise _WrongFileError(f"{answer.total} bytes, the manifest says {size}")
                if answer.start != have:
                    state = _start_over(file, channel, have)
                    have = 0
                for piece in answer.pieces:
                    channel.check()
                    if have + len(piece) > size:
                        raise _WrongFileError(f"more than the {size} bytes that the manifest says")
                    file.write(piece)
                    state.update(piece)
                    have += len(piece)
                    channel.count(len(piece))
                if have < size:
                    raise PassingError(f"{place.shown(name)}: cut off after {have} of {size} bytes; try again later")
            except PassingError as error:
                failures = 0 if have - before >= ENOUGH else failures + 1
                wait_again(failures, error, channel)
        file.flush()
        os.fsync(file.fileno())
    return state.hexdigest()


def _hash_start(file: BinaryIO, size: int) -> Any:
    """The hash of what an interrupted download left; the file then stands at its end."""
    state = hashlib.sha256()
    if file.seek(0, os.SEEK_END) > size:
        file.truncate(0)
    file.seek(0)
    while block := file.read(_BLOCK):
        state.update(block)
    return state


def _start_over(file: BinaryIO, channel: Channel, have: int) -> Any:
    file.seek(0)
    file.truncate()
    channel.count(-have)
    return hashlib.sha256()
