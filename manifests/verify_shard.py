"""Verify one shard: compare its tar, its table and the manifest."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from manifests.errors import PatchSetError, unreadable
from manifests.format import shard_table, tar
from manifests.format.digest import file_digest, pixel_digest
from manifests.format.schema import File, Shard, patch_key
from manifests.limits import max_patch_bytes
from manifests.support.counts import counted
from manifests.support.files import is_plain
from manifests.untrusted.images import decode_patch

LOSSLESS = frozenset({"png", "webp", "ppm"})
MAX_FAULTS = 20  # faults of one kind that are reported for one file

Faults = Iterable[tuple[str, str]]  # pairs of a file name, and what was observed and expected


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """The result of the verification of one shard."""

    faults: tuple[tuple[str, str], ...]
    patches: int  # number of patches that were read and hashed
    pixel_digests: bytes  # from the table, 32 bytes for each patch


def verify_shard(folder: Path, shard: Shard, image_format: str, size: int) -> ShardReport:
    """Read a whole shard and its table, and compare them with the manifest and with each other.

    A file that is missing or not a regular file is skipped: ``verify`` reports it.
    """
    path, table_path = folder / shard.name, folder / shard.parquet.name
    faults: list[tuple[str, str]] = []
    patches, digests = 0, b""
    try:
        faults += [*_file_faults(path, shard), *_file_faults(table_path, shard.parquet)]
        if is_plain(table_path):
            columns = shard_table.read_columns(table_path, shard.n)
            digests = shard_table.raw_digests(columns["pixels"])
            faults += first_faults(_row_faults(table_path.name, columns, shard))
            if is_plain(path):
                faults += first_faults(_tar_faults(path, columns, shard, image_format, size))
                patches = shard.n
    except PatchSetError as error:
        faults.append((table_path.name, str(error).removeprefix(f"{table_path}: ")))
    except OSError as error:
        fault = unreadable(path.name, "the shard or its table", error, "download it again or rebuild it")
        faults.append((path.name, str(fault).removeprefix(f"{path.name}: ")))
    return ShardReport(faults=tuple(faults), patches=patches, pixel_digests=digests)


def first_faults(faults: Faults) -> list[tuple[str, str]]:
    """Return the first ``MAX_FAULTS`` faults. If there are more, add an entry with the number of further faults."""
    faults = iter(faults)
    kept, more, file = list(itertools.islice(faults, MAX_FAULTS)), 0, ""
    for file, _ in faults:  # noqa: B007 - the last file is used
        more += 1
    return [*kept, (file, f"and {counted(more, 'more fault')} of this kind")] if more else kept


def _file_faults(path: Path, part: File) -> Faults:
    """Check the digest of a file. A file of a wrong size is not read, because it may be huge."""
    if is_plain(path) and path.stat().st_size == part.bytes and (digest := file_digest(path)) != part.sha256:
        yield path.name, f"sha256 is {digest}, the manifest declares {part.sha256}"


def _row_faults(name: str, columns: dict[str, pa.Array], shard: Shard) -> Faults:
    for row, (key, number) in enumerate(shard_table.iterate_rows([columns["key"], columns["index"]])):
        index = shard.first_index + row
        if number != index:
            yield name, f"row {row} has index {number}, expected {index}"
        if key != patch_key(index):
            yield name, f"row {row} has key {key!r}, expected {patch_key(index)!r}"


def _tar_faults(path: Path, columns: dict[str, pa.Array], shard: Shard, image_format: str, size: int) -> Faults:
    """Compare each member of a tar with its table row. For a missing member, report that the next header is wrong."""
    name = path.name
    contract = shard_table.iterate_rows([columns[name] for name in ("offset", "size", "sha256", "pixels")])
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        position = 0
        for index, (offset, length, sha256, pixels) in enumerate(contract, start=shard.first_index):
            member = f"{patch_key(index)}.{image_format}"
            if offset != position + tar.BLOCK or not 0 <= length <= end - offset:
                right = f"offset {position + tar.BLOCK} and at most {counted(end, 'byte')}"
                found = f"offset {offset} and {counted(length, 'byte')}"
                yield name, f"member {member}: the row declares {found}, expected {right}"
                return
            if length > (most := max_patch_bytes(size)):
                yield name, f"member {member}: the size is {length} bytes, expected at most {most} for {size} px"
                return
            block = file.read(tar.BLOCK)
            if block != tar.header(member, length):
                yield name, f"member {member}: the header at byte {position} is wrong; it {_named(block)}"
            data = file.read(length)
            padding = tar.padding(length)
            if file.read(len(padding)) != padding:
                yield name, f"member {member}: the padding after this member is not zero bytes"
            if (digest := hashlib.sha256(data).digest()) != sha256:
                yield name, f"member {member}: sha256 is {digest.hex()}, the row declares {sha256.hex()}"
            else:
                yield from _image_faults(data, name, member, image_format, size, pixels)
            position = offset + length + len(padding)
        if file.read(len(tar.END) + 1) != tar.END:
            yield name, f"the tar does not end with two zero blocks at byte {position}, after the last member"


def _named(block: bytes) -> str:
    found = block[:100].split(b"\x00", 1)[0]
    return f"names the member {found.decode('latin-1')!a}" if found else "names no member"


def _image_faults(data: bytes, name: str, member: str, image_format: str, size: int, expected: bytes) -> Faults:
    try:
        found = decode_patch(data, f"member {member}", size, image_format)
    except PatchSetError as error:
        yield name, str(error)
        return
    # The table records the digest of the pixels before encoding. A lossy format decodes to other pixels.
    if image_format in LOSSLESS and (digest := pixel_digest(found)) != expected:
        yield name, f"member {member}: the pixels have the digest {digest.hex()}, the row declares {expected.hex()}"
