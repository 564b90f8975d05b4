"""The marker that lies in a place while a set is sent there: of which upload the files beside it are."""

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.errors import PatchSetError
from manifests.remote.download import read_whole
from manifests.remote.sending import send_file
from manifests.remote.store import StorePlace
from manifests.remote.transfers import alone
from manifests.support.files import write_atomically
from manifests.verify import BUILD_MARKER

MARKER_NAME = f"{BUILD_MARKER}-upload.json"
"""Readers ignore it."""
_MAX_MARKER_BYTES = 1 << 16
_SAYS_NOTHING = "?"
_ID = re.compile(r"[0-9a-z]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What is being sent: a set, the build that makes it, or both; neither where nothing but a trial was written.

    ``set_id`` is known when a set is built, ``build`` (any text that only equal builds share) before it is.
    """

    set_id: str | None = None
    build: str | None = None

    def __str__(self) -> str:
        if self.free:
            return "no set"
        return f"the build {self.build}" if self.set_id is None else f"the set {self.set_id}"

    @property
    def free(self) -> bool:
        """Whether it takes the place for nobody."""
        return self == Marker()

    def differs(self, other: "Marker") -> bool:
        """Whether the two cannot be of one upload."""
        pairs = self._pairs(other)
        return any(_SAYS_NOTHING in pair or (None not in pair and pair[0] != pair[1]) for pair in pairs)

    def matches(self, other: "Marker") -> bool:
        """Whether the two are of one upload for sure."""
        return not self.differs(other) and any(None not in pair for pair in self._pairs(other))

    def _pairs(self, other: "Marker") -> tuple[tuple[str | None, str | None], ...]:
        return (self.set_id, other.set_id), (self.build, other.build)


def send_marker(place: StorePlace, home: Path, marker: Marker) -> None:
    """Leave a marker in the place; a copy of it in ``home``.

    Raises:
        PatchSetError: it cannot be written.
    """
    value = {"set_id": marker.set_id, "build": marker.build}
    write_atomically(home / MARKER_NAME, json.dumps(value).encode())
    place.make()
    send_file(place, home / MARKER_NAME, MARKER_NAME, alone())


def read_marker(place: StorePlace) -> Marker:
    """What is being sent to the place, as its marker says; the set ``?`` where that says nothing.

    Raises:
        PatchSetError: it cannot be read.
    """
    data = read_whole(place, MARKER_NAME, _MAX_MARKER_BYTES, alone())
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return Marker(set_id=_SAYS_NOTHING)
    return Marker(set_id=_text(value.get("set_id", _SAYS_NOTHING)), build=_text(value.get("build")))


def is_taken(place: StorePlace, found: Marker, mine: Marker) -> str:
    """What to say of a place whose marker is another upload's."""
    return (
        f"{place.shown(MARKER_NAME)}: belongs to an unfinished upload of {found}, this is one of {mine}; choose "
        "another --out, or remove what lies there"
    )


def try_to_write(place: StorePlace, home: Path) -> None:
    """Write a marker of no set and remove it: what cannot be written is better known before a build than after it.

    Raises:
        PatchSetError: it cannot be written.
    """
    try:
        send_marker(place, home, Marker())
    finally:
        (home / MARKER_NAME).unlink(missing_ok=True)
    with contextlib.suppress(PatchSetError):  # the build's own marker will take its place
        place.remove(MARKER_NAME)


def _text(value: Any) -> str | None:
    """An id, or that there is none; anything else says nothing."""
    if value is None or (isinstance(value, str) and _ID.fullmatch(value)):
        return value
    return _SAYS_NOTHING
