"""Where a set lies elsewhere: what counts as a URL, and how one is shown without its secrets."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from manifests.errors import PatchSetError

MANIFEST_END = "/manifest.json"
WEB_SCHEMES = ("http", "https")

_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*"
_URL = re.compile(rf"(?:{_SCHEME}::)*({_SCHEME})://")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a place says when a file is asked for: its bytes from ``start`` on, in pieces.

    ``start`` is what was asked for, or 0 where the place cannot begin in the middle; ``total`` the length of the
    whole file, where it is told.
    """

    start: int
    total: int | None
    pieces: Iterator[bytes]


class Place(Protocol):
    """Where files of one set lie."""

    def shown(self, name: str = "") -> str:
        """The place, or a file in it, for a message."""

    def open(self, name: str, start: int) -> Answer:
        """Ask for a file from byte ``start`` on.

        Raises:
            PassingError: it may be had when asked again; also while its pieces are taken.
            PatchSetError: it cannot be had.
        """


def is_url(text: str) -> bool:
    """Whether a text names a place elsewhere, and no path."""
    return _URL.match(text) is not None


def parse_url(text: str) -> str | Path:
    """A URL that may be used, or the path that a ``file:`` URL stands for. ``…/manifest.json`` names its set.

    Raises:
        PatchSetError: it is chained (``simplecache::s3://…``), holds control characters, or is damaged.
    """
    match = _URL.match(text)
    if match is None:
        raise PatchSetError(f"{text!r}: is no URL, expected one such as https://host/set")
    if "::" in text[: match.end()]:
        raise PatchSetError(f"{shown(text)}: URLs within URLs are not followed; give the set's own")
    if not text.isprintable():
        raise PatchSetError(f"{shown(text)!a}: holds control characters; give the URL as it was published")
    scheme = match[1].lower()
    try:
        parts = urlsplit(text)
        port = parts.port if scheme in WEB_SCHEMES else None
    except ValueError as error:
        raise PatchSetError(f"{shown(text)}: is no URL: {error}; give it as it was published") from error
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise PatchSetError(f"{shown(text)}: is on another machine; give a path, or a URL that can be fetched")
        return Path(unquote(parts.path))
    if scheme in WEB_SCHEMES and (not parts.hostname or port == 0):
        raise PatchSetError(f"{shown(text)}: names no host that can be asked; give a URL such as https://host/set")
    return text


def shown(url: str) -> str:
    """A URL without what may be secret: user and password, and a query, which may be a signature."""
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    if "@" in authority:
        rest = host + rest[len(authority) :]
    elif "@" in rest and re.search(r":(?!\d*$)", re.sub(r"^\[.*?\]", "", authority)):
        rest = rest.rpartition("@")[2]  # a password with a slash in it
    path, query, _ = rest.partition("?")
    return scheme + separator + path + ("?…" if query else "")


def trimmed(path: str) -> str:
    """A URL's path without what may stand behind the set's own: slashes, the manifest's name."""
    return path.rstrip("/").removesuffix(MANIFEST_END).rstrip("/")
