"""Write a set as a BagIt bag: put the files of the set into ``data/``, and their checksums into text files.

Source: RFC 8493, "The BagIt File Packaging Format (V1.0)". Optional dates are omitted.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from manifests.errors import PatchSetError, corrupt
from manifests.format.checksums import format_sums
from manifests.format.digest import file_digest
from manifests.format.schema import MANIFEST_NAME
from manifests.patchset import PatchSet
from manifests.support.counts import counted
from manifests.support.files import describe_os_error, write_atomically
from manifests.support.system_files import entries

_LARGE = frozenset({".tar", ".parquet"})


def write_bag(
    patchset: PatchSet,
    names: list[str],
    expected: Mapping[str, str],
    bag: Path,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the files ``names`` of a set into the new bag ``bag``. Hard-link shards and tables, and copy other files.

    ``expected`` maps file names to hex digests. If a file has another digest, raise an error. Call ``on_bytes`` with
    the number of bytes hashed since the last call. Write ``bagit.txt`` last, because it marks a folder as a bag.
    """
    if bag.exists() and (not bag.is_dir() or entries(bag)):
        raise PatchSetError(f"{bag}: this path exists and is not an empty folder; choose another --bagit")
    data = bag / "data"
    try:
        data.mkdir(parents=True)
        digests = {}
        for name in names:
            _link_or_copy(patchset.folder / name, data / name)
            digests[name] = file_digest(data / name, on_bytes)
            if digests[name] != expected.get(name, digests[name]):
                raise corrupt(patchset.folder / name, f"sha256 is {digests[name]}, expected {expected[name]}")
        octets = sum((data / name).stat().st_size for name in names)
        manifest = patchset.manifest
        info = (
            f"Bag-Software-Agent: patchgen\n"
            f"External-Description: {counted(manifest.n, 'patch')} of {manifest.size} px\n"
            f"External-Identifier: {manifest.set_id}\n"
            f"Payload-Oxum: {octets}.{len(names)}\n"
        )
        tags = {
            "bag-info.txt": info.encode(),
            "manifest-sha256.txt": format_sums({f"data/{name}": digest for name, digest in digests.items()}),
            "bagit.txt": b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        }
        sums = {name: hashlib.sha256(text).hexdigest() for name, text in tags.items()}
        write_atomically(bag / "tagmanifest-sha256.txt", format_sums(sums))
        for name, text in tags.items():
            write_atomically(bag / name, text)
    except BaseException as error:
        shutil.rmtree(data, ignore_errors=True)
        with contextlib.suppress(OSError):
            for path in entries(bag):
                path.unlink()
            bag.rmdir()
        if isinstance(error, OSError):
            raise PatchSetError(f"{describe_os_error(error, bag)} or choose another --bagit") from error
        raise


def set_in_bag(folder: Path) -> Path | None:
    """Return the folder of the set inside the bag ``folder``. Return None if ``folder`` is not a bag of a set."""
    inner = folder / "data"
    bagged = (folder / "bagit.txt").is_file() and (inner / MANIFEST_NAME).is_file()
    return inner if bagged and not (folder / MANIFEST_NAME).exists() else None


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a shard or table. Copy any other file, so that an edit of the set's card does not change the bag."""
    if source.suffix in _LARGE:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
