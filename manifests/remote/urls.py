"""Parse and validate URLs of patch sets."""

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from manifests.errors import PatchSetError
from manifests.support.redaction import HTTP_SCHEMES, display_url

MANIFEST_SUFFIX = "/manifest.json"
# Object stores have no folders, and their packages never read keys from a URL.
BUCKET_SCHEMES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oci", "oss", "tos"})
_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*"
_URL = re.compile(rf"(?:{_SCHEME}::)*({_SCHEME})://")


def is_url(text: str) -> bool:
    """Return whether a text is a URL and not a path."""
    return _URL.match(text) is not None


def parse_url(text: str) -> str | Path:
    """Validate a URL. Return the path of a ``file:`` URL. Return any other URL with the scheme in lower case."""
    match = _URL.match(text)
    if match is None:
        raise PatchSetError(f"{text!r}: this is not a URL, expected a URL such as https://host/set")
    if "::" in text[: match.end()]:
        raise PatchSetError(f"{display_url(text)}: URLs within URLs are not supported; use the URL of the set itself")
    if not text.isprintable():
        raise PatchSetError(f"{display_url(text)!a}: the URL contains control characters; copy it again")
    scheme = match[1].lower()
    text = scheme + text[len(scheme) :]
    try:
        parts = urlsplit(text)
        port = parts.port if scheme in HTTP_SCHEMES else None
    except ValueError:  # without the cause, because -v would print a password in its message
        what = "the host or the port of the URL is invalid; correct it (in a password, write / : @ as %2F %3A %40)"
        raise PatchSetError(f"{display_url(text)}: {what}") from None
    if scheme == "file":
        return _file_path(text, parts)
    if scheme in HTTP_SCHEMES and (not parts.hostname or port == 0):
        what = "the URL has port 0" if port == 0 else "the URL has no host"
        raise PatchSetError(f"{display_url(text)}: {what}; use a URL such as https://host/set")
    has_password = ":" in parts.netloc.rpartition("@")[0] or "…" in display_url(text.partition("?")[0])
    if scheme in BUCKET_SCHEMES and has_password and not parts.netloc.startswith("arn:"):
        advice = "remove the keys, and configure them for the package of the store, for example with AWS_PROFILE"
        raise PatchSetError(f"{display_url(text)}: access keys in a URL are refused; {advice}")
    return text


def _file_path(text: str, parts: SplitResult) -> Path:
    if parts.netloc not in ("", "localhost"):
        raise PatchSetError(f"{display_url(text)}: the URL names another machine; use a path or an https:// URL")
    path = unquote(parts.path)
    if not path or "\0" in path:
        what = "the path contains a NUL byte (%00)" if path else "the URL has no path"
        raise PatchSetError(f"{display_url(text)}: {what}; use a URL such as file:///home/me/set")
    return Path(path)


def folder_of(path: str) -> str:
    """Remove ``/manifest.json`` and slashes from the end of ``path``, the path or URL of a set. Return the rest."""
    return path.rstrip("/").removesuffix(MANIFEST_SUFFIX).rstrip("/")
