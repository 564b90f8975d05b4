"""Export a finished set: write the files that other tools read beside it."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from manifests.export.bagit import write_bag
from manifests.export.dataset_card import CARD_NAME, make_card
from manifests.export.finalize import derived_files, file_digests, may_replace_card, write_sums
from manifests.export.shard_index import dali_name, make_dali_index
from manifests.format.checksums import SUMS_NAME, read_sums
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, Shard
from manifests.patchset import PatchSet, open_folder
from manifests.support.files import atomic_file, describe_os_error, hold_folder, is_plain, write_atomically
from manifests.verify import verify
from patchgen.errors import PatchgenError

ASIDE_CARD = f"{CARD_NAME}.edited"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """Names of the ``files`` that were written, and of the card that a user had edited, if there is one."""

    patchset: PatchSet
    files: tuple[str, ...]
    edited_card: str | None

    @property
    def total_bytes(self) -> int:
        """Size of all shards and tables."""
        shards = self.patchset.manifest.shards
        return sum(shard.bytes + shard.parquet.bytes for shard in shards)


def export(folder: Path, *, dali: bool, new_card: bool, on_bytes: Callable[[int], None]) -> Exported:
    """Write card, ``croissant.json``, ``index.json``, ``SHA256SUMS`` and, with ``dali``, an index beside each shard.

    A card that a user edited stays, unless ``new_card`` is set; then it is renamed. Existing indexes are written
    again without ``dali`` too. ``on_bytes`` is called with the bytes of tables that were read for them.

    Raises:
        PatchSetError: there is no such set.
        PatchgenError: a shard or table is missing or of another size, ``SHA256SUMS`` is that of another manifest,
            another program writes there, or a file cannot be written.
    """
    patchset = open_folder(folder)
    try:
        with hold_folder(folder):
            _require_good(patchset)
            return _write(patchset, _indexed(patchset, dali), new_card, on_bytes)
    except BlockingIOError as error:
        raise PatchgenError(f"{folder}: another program is writing here; wait for it to end") from error
    except OSError as error:
        raise PatchgenError(f"{describe_os_error(error, folder)} and export again") from error


def _require_good(patchset: PatchSet) -> None:
    """Refuse a damaged set: new digests would hide the damage."""
    folder, manifest = patchset.folder, patchset.manifest
    own = {CARD_NAME, SUMS_NAME, *derived_files(manifest), *map(dali_name, manifest.shards)}
    for fault in verify(folder, fast=True).faults:
        if fault.file not in own:
            raise PatchgenError(f"{folder}: {fault}; rebuild the set, or copy what is named from a good one")
    if not is_plain(folder / SUMS_NAME):
        return
    expected = file_digests(manifest, derived=False) | {MANIFEST_NAME: file_digest(folder / MANIFEST_NAME)}
    for name, digest in read_sums(folder / SUMS_NAME).items():
        if digest != expected.get(name, digest):
            raise PatchgenError(
                f"{folder / SUMS_NAME}: names {name} with {digest}, the set has {expected[name]}; one of the two was "
                f"changed: copy both from a good set, or remove {SUMS_NAME} if the manifest is the right one"
            )


def _indexed(patchset: PatchSet, dali: bool) -> list[Shard]:
    """Return the shards that get an index for DALI: all, or those that have one."""
    shards = patchset.manifest.shards
    return [shard for shard in shards if dali or os.path.lexists(patchset.folder / dali_name(shard))]


def _write(patchset: PatchSet, indexed: list[Shard], new_card: bool, on_bytes: Callable[[int], None]) -> Exported:
    folder, manifest = patchset.folder, patchset.manifest
    files = {CARD_NAME: make_card(manifest)} | derived_files(manifest)
    edited_card = None
    if not may_replace_card(folder):
        edited_card = CARD_NAME
        if new_card:
            edited_card = next(name for name in _aside_names() if not os.path.lexists(folder / name))
            (folder / CARD_NAME).replace(folder / edited_card)
        else:
            del files[CARD_NAME]
    for name, data in files.items():
        write_atomically(folder / name, data)
    for shard in indexed:
        _require_table(folder, shard, on_bytes)
        with atomic_file(folder / dali_name(shard)) as file:
            file.writelines(make_dali_index(patchset, shard))
    write_sums(folder, manifest)
    written = (*files, *map(dali_name, indexed), SUMS_NAME)
    return Exported(patchset=patchset, files=written, edited_card=edited_card)


def _aside_names() -> Iterator[str]:
    yield ASIDE_CARD
    yield from (f"{ASIDE_CARD}.{number}" for number in count(2))


def _require_table(folder: Path, shard: Shard, on_bytes: Callable[[int], None]) -> None:
    path = folder / shard.parquet.name
    if (found := file_digest(path, on_bytes)) != shard.parquet.sha256:
        raise PatchgenError(f"{path}: sha256 is {found}, expected {shard.parquet.sha256}; rebuild the set")


def export_bag(exported: Exported, bag: Path, on_bytes: Callable[[int], None]) -> None:
    """Make a BagIt bag of a set that was just exported.

    Raises:
        PatchSetError: ``bag`` exists or cannot be written, or a file of the set has a wrong digest.
    """
    folder, manifest = exported.patchset.folder, exported.patchset.manifest
    listed = read_sums(folder / SUMS_NAME)
    expected = file_digests(manifest, derived=False) | listed
    write_bag(exported.patchset, [*listed, CARD_NAME, SUMS_NAME], expected, bag, on_bytes)
