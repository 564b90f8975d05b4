"""Export a finished set: write the files that other tools read beside it."""

import dataclasses
import os
from collections.abc import Callable
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
from manifests.support.files import atomic_file, describe_os_error, hold_folder, is_plain, write_atomically
from manifests.verify import verify
from patchgen.errors import PatchgenError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """Names of the ``files`` that were written, and of the card that a user had edited, if there is one."""

    patchset: PatchSet
    files: tuple[str, ...]
    edited_card: str | None


def export(folder: Path, *, dali: bool, new_card: bool, on_bytes: Callable[[int], None]) -> Exported:
    """Write card, ``croissant.json``, ``index.json``, ``SHA256SUMS`` and, with ``dali``, an index beside each shard.

    A card that a user edited stays, unless ``new_card`` is set; then it is renamed. Existing indexes are written
    again without ``dali`` too. ``on_bytes`` is called with the bytes of tables that were read for them.
    """
    patchset = open_folder(folder)
    try:
        with hold_folder(folder):
            _require_good(patchset)
            return _write(patchset, dali, new_card, on_bytes)
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


def _write(patchset: PatchSet, dali: bool, new_card: bool, on_bytes: Callable[[int], None]) -> Exported:
    folder, manifest = patchset.folder, patchset.manifest
    files = {CARD_NAME: make_card(manifest)} | derived_files(manifest)
    edited_card = None if may_replace_card(folder) else CARD_NAME
    if edited_card and new_card:
        aside = f"{CARD_NAME}.edited"
        names = chain([aside], (f"{aside}.{number}" for number in count(2)))
        edited_card = next(name for name in names if not os.path.lexists(folder / name))
        (folder / CARD_NAME).replace(folder / edited_card)
    elif edited_card:
        del files[CARD_NAME]
    for name, data in files.items():
        write_atomically(folder / name, data)
    indexes = []
    for shard in manifest.shards:
        index, table = folder / dali_name(shard), folder / shard.parquet.name
        if not dali and not os.path.lexists(index):
            continue
        if (found := file_digest(table, on_bytes)) != shard.parquet.sha256:
            raise PatchgenError(f"{table}: sha256 is {found}, expected {shard.parquet.sha256}; rebuild the set")
        with atomic_file(index) as file:
            file.writelines(make_dali_index(patchset, shard))
        indexes.append(index.name)
    write_sums(folder, manifest)
    return Exported(patchset=patchset, files=(*files, *indexes, SUMS_NAME), edited_card=edited_card)


def export_bag(exported: Exported, bag: Path, on_bytes: Callable[[int], None]) -> None:
    """Make a BagIt bag of a set that was just exported."""
    folder, manifest = exported.patchset.folder, exported.patchset.manifest
    listed = read_sums(folder / SUMS_NAME)
    expected = file_digests(manifest, derived=False) | listed
    write_bag(exported.patchset, [*listed, CARD_NAME, SUMS_NAME], expected, bag, on_bytes)
