"""Wiring of an export: a finished set in, the files that other tools read beside it out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from manifests.bag import write_bag
from manifests.card import CARD_NAME, make_card
from manifests.files import atomic_file, describe_os_error, hold_folder, write_atomically
from manifests.finish import derived_files, may_replace_card, write_sums
from manifests.indexes import dali_name, make_dali_index
from manifests.patchset import MANIFEST_NAME, PatchSet, open_patchset
from manifests.sums import SUMS_NAME
from manifests.verify import verify
from patchgen.errors import PatchgenError

ASIDE_CARD = f"{CARD_NAME}.edited"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """``files`` were written; ``kept_aside`` is the new name of a card that somebody had edited."""

    patchset: PatchSet
    files: tuple[str, ...]
    kept_aside: str | None

    @property
    def total_bytes(self) -> int:
        """Of the whole set."""
        shards = self.patchset.manifest.shards
        return sum(shard.bytes + shard.parquet.bytes for shard in shards)


def export(folder: Path, *, dali: bool, on_share: Callable[[int], None]) -> Exported:
    """Write card, ``croissant.json``, ``index.json``, ``SHA256SUMS`` and, with ``dali``, an index beside each shard.

    ``on_share`` hears 1 when the indexes are done.

    Raises:
        PatchSetError: there is no such set.
        PatchgenError: a shard or table of it is missing or of another size, somebody writes there, or it cannot be
            written.
    """
    patchset = open_patchset(folder)
    own = {CARD_NAME, SUMS_NAME, *derived_files(patchset.manifest), *map(dali_name, patchset.manifest.shards)}
    for fault in verify(folder, fast=True).faults:
        if fault.file not in own:
            raise PatchgenError(f"{folder}: {fault}; rebuild the set, or copy what is named from a good one")
    try:
        with hold_folder(folder):
            return _write(patchset, dali, on_share)
    except BlockingIOError as error:
        raise PatchgenError(f"{folder}: another program is writing here; wait for it to end") from error
    except OSError as error:
        raise PatchgenError(f"{describe_os_error(error, folder)} and export again") from error


def _write(patchset: PatchSet, dali: bool, on_share: Callable[[int], None]) -> Exported:
    folder, manifest = patchset.folder, patchset.manifest
    kept_aside = None
    if not may_replace_card(folder):
        (folder / CARD_NAME).replace(folder / ASIDE_CARD)
        kept_aside = ASIDE_CARD
    files = {CARD_NAME: make_card(manifest)} | derived_files(manifest)
    for name, data in files.items():
        write_atomically(folder / name, data)
    indexes = [dali_name(shard) for shard in manifest.shards] if dali else []
    for name, shard in zip(indexes, manifest.shards, strict=False):
        with atomic_file(folder / name) as file:
            file.writelines(make_dali_index(patchset, shard))
    on_share(1)
    write_sums(folder, manifest)
    return Exported(patchset=patchset, files=(*files, *indexes, SUMS_NAME), kept_aside=kept_aside)


def export_bag(exported: Exported, bag: Path, on_bytes: Callable[[int], None]) -> None:
    """Make a BagIt bag of a set that was just exported.

    Raises:
        PatchSetError: ``bag`` is there already, or cannot be written.
    """
    manifest = exported.patchset.manifest
    names = [name for shard in manifest.shards for name in (shard.name, shard.parquet.name)]
    write_bag(exported.patchset, [*names, *exported.files, MANIFEST_NAME], bag, on_bytes)
