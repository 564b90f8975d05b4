"""Where a set lies elsewhere: what counts as a URL, and how one is shown without its secrets."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from manifests.errors import PatchSetError

MANIFEST_END = "/manifest.json"
WEB_SCHEMES = ("http", "https")
BUCKET_SCHEMES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oci", "oss", "tos"})
"""Stores of buckets, which have no folders; their packages never read keys out of a URL."""

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

    The scheme is written in small letters then.

    Raises:
        PatchSetError: it is chained (``simplecache::s3://…``), holds control characters or a bucket's keys, or is
            damaged.
    """
    match = _URL.match(text)
    if match is None:
        raise PatchSetError(f"{text!r}: is no URL, expected one such as https://host/set")
    if "::" in text[: match.end()]:
        raise PatchSetError(f"{shown(text)}: URLs within URLs are not followed; give the set's own")
    if not text.isprintable():
        raise PatchSetError(f"{shown(text)!a}: holds control characters; give the URL as it was published")
    scheme = match[1].lower()
    text = scheme + text[len(scheme) :]
    try:
        parts = urlsplit(text)
        port = parts.port if scheme in WEB_SCHEMES else None
    except ValueError:  # whose words may hold a password, so that not even -v may show it
        raise PatchSetError(
            f"{shown(text)}: is no URL: its host or port is none; write / : @ and other signs of a password as %2F, "
            "%3A and %40"
        ) from None
    if scheme == "file":
        return _local(text, parts)
    if scheme in WEB_SCHEMES and (not parts.hostname or port == 0):
        raise PatchSetError(f"{shown(text)}: names no host that can be asked; give a URL such as https://host/set")
    if scheme in BUCKET_SCHEMES and _hides(text) and not parts.netloc.startswith("arn:"):
        raise PatchSetError(
            f"{shown(text)}: keys are not read from a URL; leave them out, and put them where the store's package "
            "looks for them, such as AWS_PROFILE"
        )
    return text


def _local(text: str, parts: SplitResult) -> Path:
    if parts.netloc not in ("", "localhost"):
        raise PatchSetError(f"{shown(text)}: is on another machine; give a path, or a URL that can be fetched")
    path = unquote(parts.path)
    if not path or "\0" in path:
        raise PatchSetError(f"{shown(text)}: names no path; give one such as file:///home/me/set")
    return Path(path)


def _hides(url: str) -> bool:
    """Whether a password may stand before the last ``@``: a slash in one ends what counts as the URL's host."""
    before, _, _ = url.partition("://")[2].rpartition("@")
    return ":" in re.sub(r"^\[.*?\]", "", _authority(before))


def _authority(rest: str) -> str:
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def shown(url: str) -> str:
    """A URL without what may be secret: user and password, a query, which may be a signature, and a fragment."""
    scheme, separator, rest = url.partition("://")
    authority = _authority(rest)
    behind = rest[len(authority) :]
    if "@" in behind and _hides(url):
        before, _, host = rest.rpartition("@")
        rest = "…" if re.search("[?#]", before) else f"…@{host}"  # behind these it may be in a signature
    else:
        rest = authority.rpartition("@")[2] + behind
    if scheme.lower() in WEB_SCHEMES:
        rest = rest.partition("#")[0]
    path, query, _ = rest.partition("?")
    return scheme + separator + path + ("?…" if query else "")


def names_manifest(url: str) -> bool:
    """Whether a set's URL is its manifest's, and not its folder's."""
    return urlsplit(url).path.rstrip("/").endswith(MANIFEST_END)


def trimmed(path: str) -> str:
    """A URL's path without what may stand behind the set's own: slashes, the manifest's name."""
    return path.rstrip("/").removesuffix(MANIFEST_END).rstrip("/")
