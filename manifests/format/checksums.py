"""Write and read ``SHA256SUMS``: the digests of the files of a set, in the format of ``sha256sum -c``."""

import re
from pathlib import Path

from manifests.errors import corrupt, unreadable
from manifests.support.files import read_regular_file

SUMS_NAME = "SHA256SUMS"
MAX_SUMS_BYTES = 32 << 20  # the file of a set of a billion patches, with DALI's indexes, has 27 MB

_LINE = re.compile(r"([0-9a-f]{64})  ([!-~]+)")


def format_sums(digests: dict[str, str]) -> bytes:
    """Return the bytes of ``SHA256SUMS``. ``digests`` maps file names to hex digests; lines are sorted by name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode("ascii")


def read_sums(path: Path) -> dict[str, str]:
    """Read ``SHA256SUMS`` and return a dict from file names to hex digests."""
    try:
        return parse_sums(read_regular_file(path, MAX_SUMS_BYTES), str(path))
    except OSError as error:
        raise unreadable(path, "the file", error, "remove the file and run 'patchgen export'") from error


def parse_sums(data: bytes, where: str) -> dict[str, str]:
    """Parse ``SHA256SUMS``. Return a dict from file names to hex digests. ``where`` names the file in errors."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise corrupt(where, f"the byte at position {error.start} is not ASCII") from error
    digests: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise corrupt(where, f"line {number} does not consist of 64 hex digits, two spaces and a file name")
        digests[match[2]] = match[1]
    if format_sums(digests) != text.encode("ascii"):
        raise corrupt(where, "the lines are not sorted by name, or a line is repeated or cut off")
    return digests
