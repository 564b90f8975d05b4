"""Write the last files of a set, after shards and tables: the card, JSON files, ``SHA256SUMS`` and the manifest."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests.errors import PatchSetError, unreadable
from manifests.export.croissant import CROISSANT_NAME, make_croissant
from manifests.export.dataset_card import CARD_NAME, is_unedited, make_card
from manifests.export.shard_index import INDEX_NAME, MAX_DALI_LINE, dali_name, make_index
from manifests.format.canonical_json import parse_json
from manifests.format.checksums import SUMS_NAME, format_sums, read_sums
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME, Manifest
from manifests.support.files import is_plain, read_regular_file, write_atomically

MAX_CARD_BYTES = 16 << 20
BY_EXPORT = "run 'patchgen export' to write it again"  # remedy for a file that is derived from the manifest
_WORDS = frozenset({"name", "description", "version", "creator", "creditText", "keywords"})  # descriptions for people
_WORDS_BYTES = 1 << 16  # bytes that other descriptions may add to a file


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write all files of a set except shards and tables. Do not replace an edited card. Remove DALI indexes."""
    if may_replace_card(folder):
        write_atomically(folder / CARD_NAME, make_card(manifest))
    for name, data in derived_files(manifest).items():
        write_atomically(folder / name, data)
    for shard in manifest.shards:
        (folder / dali_name(shard)).unlink(missing_ok=True)  # it may belong to earlier shards
    write_sums(folder, manifest)
    write_atomically(folder / MANIFEST_NAME, manifest.to_json())


def write_sums(folder: Path, manifest: Manifest) -> None:
    """Write ``SHA256SUMS`` with the digests of all files of a set except the card. Include existing DALI indexes."""
    indexes = [name for name in map(dali_name, manifest.shards) if is_plain(folder / name)]
    digests = file_digests(manifest) | {name: file_digest(folder / name) for name in indexes}
    write_atomically(folder / SUMS_NAME, format_sums(digests))


def derived_files(manifest: Manifest) -> dict[str, bytes]:
    """Return the content of ``croissant.json`` and ``index.json`` by file name. Both depend only on the manifest."""
    return {CROISSANT_NAME: make_croissant(manifest), INDEX_NAME: make_index(manifest)}


def longest_exports(manifest: Manifest) -> dict[str, int]:
    """Return the maximum size in bytes of each derived file and DALI index by name. Larger files are invalid."""
    longest = {name: 2 * len(data) + _WORDS_BYTES for name, data in derived_files(manifest).items()}
    return longest | {dali_name(shard): MAX_DALI_LINE * (shard.n + 1) for shard in manifest.shards}


def file_digests(manifest: Manifest, *, derived: bool = True) -> dict[str, str]:
    """Return hex digests by file name: of shards, tables, manifest and, with ``derived``, of ``derived_files``."""
    digests = {file.name: file.sha256 for file in manifest.files}
    files = (derived_files(manifest) if derived else {}) | {MANIFEST_NAME: manifest.to_json()}
    return digests | {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def may_replace_card(folder: Path) -> bool:
    """Return whether a folder has no card, or a card that no user edited."""
    path = folder / CARD_NAME
    if not path.is_symlink() and not path.exists():
        return True
    try:
        return is_plain(path) and is_unedited(read_regular_file(path, MAX_CARD_BYTES))
    except OSError:
        return False


def has_exports(folder: Path, manifest: Manifest) -> bool:
    """Return whether a folder has a card, and ``derived_files`` and a ``SHA256SUMS`` that match ``manifest``."""
    try:
        listed = read_sums(folder / SUMS_NAME)
    except PatchSetError:
        return False
    indexes = {dali_name(shard) for shard in manifest.shards}
    if {name: digest for name, digest in listed.items() if name not in indexes} != file_digests(manifest):
        return False
    present = all(is_plain(folder / name) for name in (CARD_NAME, *(indexes & listed.keys())))
    return present and not any(derived_faults(folder, manifest))


def derived_faults(folder: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield (file name, fault) for each file of ``derived_files`` that does not match the manifest.

    Ignore texts for people, such as descriptions. Another version of this program may have written other texts.
    """
    for name, data in derived_files(manifest).items():
        try:
            if not is_plain(folder / name):
                yield name, f"the file is missing or not a regular file; {BY_EXPORT}"
            elif not agree(read_regular_file(folder / name, 2 * len(data) + _WORDS_BYTES), data):
                yield name, f"the file does not match the manifest; {BY_EXPORT}"
        except OSError as error:
            yield name, str(unreadable(name, "the file", error, BY_EXPORT)).removeprefix(f"{name}: ")


def agree(found: bytes, ours: bytes) -> bool:
    """Return whether two JSON texts are equal. Ignore texts for people in the JSON, such as descriptions."""
    try:
        return found == ours or _without_words(parse_json(found, "")) == _without_words(parse_json(ours, ""))
    except PatchSetError:
        return False


def _without_words(value: Any) -> Any:
    if isinstance(value, dict):
        parts = ((key, part) for key, part in value.items() if key not in _WORDS)
        return {key: part if key == "@context" else _without_words(part) for key, part in parts}
    return [_without_words(part) for part in value] if isinstance(value, list) else value
