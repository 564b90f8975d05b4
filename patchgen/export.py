"""Export a finished set: write files for other tools into the folder of the set."""

import dataclasses
import os
from itertools import chain, count
from pathlib import Path

from manifests.export.bagit import write_bag
from manifests.export.dataset_card import CARD_NAME, make_card
from manifests.export.finalize import derived_files, file_digests, may_replace_card, write_sums
from manifests.export.shard_index import dali_name, make_dali_index
from manifests.format.checksums import SUMS_NAME, read_sums
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME
from manifests.patchset import PatchSet, open_folder
from manifests.support.console import counting, progress_bar
from manifests.support.files import atomic_file, describe_os_error, hold_folder, is_plain, write_atomically
from manifests.verify import verify
from patchgen.errors import PatchgenError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """The result of an export."""

    patchset: PatchSet
    files: tuple[str, ...]  # names of the files that were written
    edited_card: str | None  # name of the dataset card's file, if a user edited the card


def export(folder: Path, *, dali: bool, new_card: bool) -> Exported:
    """Write the dataset card, ``croissant.json``, ``index.json`` and ``SHA256SUMS`` into the folder of a set.

    With ``dali``, also write an index for NVIDIA DALI for each shard; without, only write existing indexes again. If
    a user edited the card, do not replace the card; with ``new_card``, rename the edited card and write a new card.
    """
    patchset = open_folder(folder)
    try:
        with hold_folder(folder):
            _require_good(patchset)
            return _write(patchset, dali, new_card)
    except BlockingIOError as error:
        raise PatchgenError(f"{folder}: another program writes to this folder; export again when it ends") from error
    except OSError as error:
        raise PatchgenError(f"{describe_os_error(error, folder)} and export again") from error


def _require_good(patchset: PatchSet) -> None:
    """Raise an error if the set is damaged, because new digests would hide the damage."""
    folder, manifest = patchset.folder, patchset.manifest
    own = {CARD_NAME, SUMS_NAME, *derived_files(manifest), *map(dali_name, manifest.shards)}
    for fault in verify(folder, fast=True).faults:
        if fault.file not in own:
            raise PatchgenError(f"{folder}: {fault}; rebuild the set, or copy this file from a good set")
    if not is_plain(folder / SUMS_NAME):
        return
    expected = file_digests(manifest, derived=False) | {MANIFEST_NAME: file_digest(folder / MANIFEST_NAME)}
    for name, digest in read_sums(folder / SUMS_NAME).items():
        if digest != expected.get(name, digest):
            raise PatchgenError(
                f"{folder / SUMS_NAME}: the file lists {name} with sha256 {digest}, expected {expected[name]}; copy "
                f"{SUMS_NAME} and {MANIFEST_NAME} from a good set, or remove {SUMS_NAME} if the manifest is correct"
            )


def _write(patchset: PatchSet, dali: bool, new_card: bool) -> Exported:
    folder, manifest = patchset.folder, patchset.manifest
    files = {CARD_NAME: make_card(manifest)} | derived_files(manifest)
    edited_card = None if may_replace_card(folder) else CARD_NAME
    if edited_card and new_card:
        aside = f"{CARD_NAME}.edited"
        free = chain([aside], (f"{aside}.{number}" for number in count(2)))
        edited_card = next(name for name in free if not os.path.lexists(folder / name))
        (folder / CARD_NAME).replace(folder / edited_card)
    elif edited_card:
        del files[CARD_NAME]
    for name, data in files.items():
        write_atomically(folder / name, data)
    indexed = [shard for shard in manifest.shards if dali or os.path.lexists(folder / dali_name(shard))]
    with progress_bar("indexes, bytes", sum(shard.parquet.bytes for shard in indexed)) as update:
        on_bytes = counting(update)
        for shard in indexed:
            table = folder / shard.parquet.name
            if (found := file_digest(table, on_bytes)) != shard.parquet.sha256:
                raise PatchgenError(f"{table}: sha256 is {found}, expected {shard.parquet.sha256}; rebuild the set")
            with atomic_file(folder / dali_name(shard)) as file:
                file.writelines(make_dali_index(patchset, shard))
    write_sums(folder, manifest)
    names = (*files, *map(dali_name, indexed), SUMS_NAME)
    return Exported(patchset=patchset, files=names, edited_card=edited_card)


def export_bag(exported: Exported, bag: Path) -> None:
    """Write a set as a BagIt bag into the new folder ``bag``. ``exported`` is the result of ``export``."""
    folder, manifest = exported.patchset.folder, exported.patchset.manifest
    listed = read_sums(folder / SUMS_NAME)
    expected = file_digests(manifest, derived=False) | listed
    total = sum(shard.bytes + shard.parquet.bytes for shard in manifest.shards)
    with progress_bar("bag, bytes", total) as update:
        write_bag(exported.patchset, [*listed, CARD_NAME, SUMS_NAME], expected, bag, counting(update))
