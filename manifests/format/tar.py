"""Write and check canonical USTAR headers. The same members always have the same headers.

Source: POSIX.1-2017 ``pax``, section "ustar Interchange Format".
"""

import re
from collections.abc import Iterable
from pathlib import Path

from manifests.errors import PatchSetError, corrupt

BLOCK = 512
END = bytes(2 * BLOCK)  # end of archive: two zero blocks, without padding to a larger record

MAX_MEMBER_BYTES = 8**11 - 1
MAX_NAME_BYTES = 100

_OCTAL = re.compile(rb"[0-7]{11}")

_BEFORE_SIZE = b"0000444\x00" + b"0000000\x00" * 2  # mode, uid, gid
_MTIME = b"00000000000\x00"
_AFTER_SUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x00" * 2 + bytes(155 + 12)
_FIXED_SUM = sum(_BEFORE_SIZE + _MTIME + _AFTER_SUM) + 8 * ord(" ")  # the field of the checksum counts as spaces


def header(name: str, size: int) -> bytes:
    """Return the 512-byte header of a regular file of ``size`` bytes, with mode 0444 and uid, gid and mtime 0."""
    if not name or not name.isascii() or len(name) > MAX_NAME_BYTES:
        raise PatchSetError(f"tar member {name!r}: the name is not 1 to {MAX_NAME_BYTES} ASCII characters; rename it")
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise PatchSetError(f"tar member {name!r}: the size is {size} bytes; use at most {MAX_MEMBER_BYTES} bytes")
    encoded, octal = name.encode("ascii"), b"%011o\x00" % size
    checksum = b"%06o\x00 " % (_FIXED_SUM + sum(encoded) + sum(octal))
    return encoded.ljust(100, b"\x00") + _BEFORE_SIZE + octal + _MTIME + checksum + _AFTER_SUM


def padding(size: int) -> bytes:
    """Return the zero bytes that fill the last block of a member of ``size`` bytes."""
    return bytes(-size % BLOCK)


def require_canonical(path: Path, names: Iterable[str], max_bytes: int) -> None:
    """Check that a tar has exactly the members ``names``, canonical headers, and at most ``max_bytes`` a member.

    Only headers and padding are read. An accepted tar has no link, device, directory, sparse file or extended header.
    """
    with path.open("rb") as file:
        at = 0
        for name in names:
            block = file.read(BLOCK)
            size = int(block[124:135], 8) if _OCTAL.fullmatch(block[124:135]) else -1
            if not 0 <= size <= max_bytes or block != header(name, size):
                raise corrupt(path, f"the header at byte {at} is wrong, expected the header of {name}")
            at += BLOCK + size
            file.seek(at)
            if (found := file.read(-size % BLOCK)) != padding(size):
                raise corrupt(path, f"the padding at byte {at}, after the member {name}, is not zero bytes")
            at += len(found)
        if file.read(len(END) + 1) != END:
            raise corrupt(path, f"the tar does not end with two zero blocks at byte {at}, after the last member")
