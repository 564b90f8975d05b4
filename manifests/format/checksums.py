"""``SHA256SUMS``: the digest of every other file of a set, as ``sha256sum -c`` reads it."""

import re
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.support.files import read_regular_file

SUMS_NAME = "SHA256SUMS"
MAX_SUMS_BYTES = 32 << 20
"""A set of a billion patches, with DALI's indexes, has 27 MB."""

_LINE = re.compile(r"([0-9a-f]{64})  ([!-~]+)")


def format_sums(digests: dict[str, str]) -> bytes:
    """The bytes of the file for names and their SHA-256 as hex: a line each, sorted by name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode("ascii")


def read_sums(path: Path) -> dict[str, str]:
    """Names and their SHA-256 as hex.

    Raises:
        PatchSetError: it cannot be read, or holds anything but sorted lines of a digest, two spaces and a name.
    """
    try:
        return parse_sums(read_regular_file(path, MAX_SUMS_BYTES), str(path))
    except OSError as error:
        raise PatchSetError(f"{path}: cannot be read: {error.strerror}") from error


def parse_sums(data: bytes, where: str) -> dict[str, str]:
    """As ``read_sums``, from the bytes of the file."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise PatchSetError(f"{where}: byte {error.start} is not ASCII") from error
    digests: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise PatchSetError(f"{where}: line {number} is not 64 hex digits, two spaces and a file name")
        digests[match[2]] = match[1]
    if format_sums(digests) != text.encode("ascii"):
        raise PatchSetError(f"{where}: not sorted, a name twice, or no newline at the end")
    return digests
