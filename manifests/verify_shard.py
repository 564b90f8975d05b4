"""Verification of one shard: its tar, its table, and each against the other."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from manifests import rows, tar
from manifests.digest import file_digest, pixel_digest
from manifests.errors import PatchSetError
from manifests.files import is_plain
from manifests.images import check_patch, decode_patch
from manifests.schema import Shard, max_patch_bytes, patch_key

LOSSLESS = frozenset({"png", "webp", "ppm"})
MAX_FAULTS = 20
"""Faults told of one file; a file that is damaged all over needs no longer list."""

Faults = Iterable[tuple[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """Faults as (file, what); ``patches`` whose digests were computed; the table's pixel digests, in order."""

    faults: tuple[tuple[str, str], ...]
    patches: int
    pixel_digests: bytes


def verify_shard(folder: Path, shard: Shard, image_format: str, size: int) -> ShardReport:
    """Read a shard and its table whole, and compare them with the manifest and with each other.

    What is not there is not told of: ``verify`` knows it from the folder's names.
    """
    path, table_path = folder / shard.name, folder / shard.parquet.name
    faults = [*_file_faults(path, shard.sha256), *_file_faults(table_path, shard.parquet.sha256)]
    if not is_plain(table_path):
        return ShardReport(faults=_first(faults), patches=0, pixel_digests=b"")
    try:
        columns = rows.read_contract(table_path, shard.n)
    except PatchSetError as error:
        faults.append((table_path.name, str(error).removeprefix(f"{table_path}: ")))
        return ShardReport(faults=_first(faults), patches=0, pixel_digests=b"")
    faults += _row_faults(table_path.name, columns, shard)
    digests = b"".join(columns["pixels"])
    if not is_plain(path):
        return ShardReport(faults=_first(faults), patches=0, pixel_digests=digests)
    try:
        with path.open("rb") as file:
            faults += _member_faults(file, path.name, columns, shard, image_format, size)
    except OSError as error:
        faults.append((path.name, f"cannot be read: {error.strerror}"))
    return ShardReport(faults=_first(faults), patches=shard.n, pixel_digests=digests)


def _first(faults: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    kept = tuple(faults[:MAX_FAULTS])
    if len(faults) > MAX_FAULTS:
        kept += ((faults[-1][0], f"and {len(faults) - MAX_FAULTS} more faults of this shard"),)
    return kept


def _file_faults(path: Path, expected: str) -> Faults:
    if not is_plain(path):
        return
    try:
        digest = file_digest(path)
    except OSError as error:
        yield path.name, f"cannot be read: {error.strerror}"
        return
    if digest != expected:
        yield path.name, f"sha256 is {digest}, the manifest says {expected}"


def _row_faults(name: str, columns: dict[str, list[Any]], shard: Shard) -> Faults:
    indices = range(shard.first_index, shard.first_index + shard.n)
    for row, (index, key, found) in enumerate(zip(indices, columns["key"], columns["index"], strict=True)):
        if found != index:
            yield name, f"row {row} has index {found}, expected {index}"
        if key != patch_key(index):
            yield name, f"row {row} has key {key!r}, expected {patch_key(index)!r}"


def _member_faults(
    file: BinaryIO, name: str, columns: dict[str, list[Any]], shard: Shard, image_format: str, size: int
) -> Faults:
    """Walk through the tar as a canonical one must be; a lost member is found where the next one stands."""
    contract = zip(columns["offset"], columns["size"], columns["sha256"], columns["pixels"], strict=True)
    end = os.fstat(file.fileno()).st_size
    position = 0
    for index, (offset, length, sha256, pixels) in enumerate(contract, start=shard.first_index):
        member = f"{patch_key(index)}.{image_format}"
        if offset != position + tar.BLOCK or not 0 <= length <= end - offset:
            yield name, f"member {member}: its row says {length} bytes at {offset}, the tar has {end} in all"
            return
        if length > (most := max_patch_bytes(size)):
            yield name, f"member {member}: {length} bytes, expected at most {most} for {size} px"
            return
        block = file.read(tar.BLOCK)
        if block != tar.header(member, length):
            yield name, f"member {member}: the header at byte {position} is {_named(block)}"
        data = file.read(length)
        padding = tar.padding(length)
        if file.read(len(padding)) != padding:
            yield name, f"member {member}: the padding behind it is not zero bytes"
        if (digest := hashlib.sha256(data).digest()) != sha256:
            yield name, f"member {member}: sha256 is {digest.hex()}, its row says {sha256.hex()}"
        else:
            yield from _image_faults(data, name, member, image_format, size, pixels)
        position = offset + length + len(padding)
    if file.read(len(tar.END) + 1) != tar.END:
        yield name, f"after the last member, at byte {position}, stands something else than two zero blocks"


def _named(block: bytes) -> str:
    found = block[:100].split(b"\x00", 1)[0]
    return f"that of {found.decode('latin-1')!a}, or damaged" if found else "empty"


def _image_faults(data: bytes, name: str, member: str, image_format: str, size: int, expected: bytes) -> Faults:
    try:
        if image_format not in LOSSLESS:  # its pixels hash to nothing that is recorded, so its header will do
            check_patch(data, f"member {member}", size, image_format)
            return
        digest = pixel_digest(decode_patch(data, f"member {member}", size, image_format))
    except PatchSetError as error:
        yield name, str(error)
        return
    if digest != expected:
        yield name, f"member {member}: its pixels hash to {digest.hex()}, its row says {expected.hex()}"
