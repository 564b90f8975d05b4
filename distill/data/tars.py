"""WebDataset samples from local tars, opened as plain files: no name is ever taken for a URL or a command."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_expander

from manifests.archives import members_of, open_tar

_META = re.compile(r"__[^/]*__($|/)")


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The samples of a tar, in order: raw bytes by extension, ``__key__``, and ``__url__``, the tar's path.

    Raises:
        tarfile.TarError, ValueError, OSError: the tar is damaged or holds a name twice.
    """
    with path.open("rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}]))


def read_labelled(path: Path, suffixes: Sequence[str], max_bytes: int) -> Iterator[dict[str, Any]]:
    """The samples of anybody's tar, as ``read_samples`` gives them; but of what they hold only two members are read:
    the first that is there of ``suffixes``, and ``cls``. Of others, ``None`` is given.

    Raises:
        tarfile.TarError, EOFError, OSError, zlib.error, ValueError: as ``members_of``; or a member that is wanted has
            more than ``max_bytes``.
    """
    members = [m for m in members_of(path) if m.isreg() and not m.issparse() and not _META.match(m.name)]
    named = ({"fname": member.name, "data": member, "__url__": str(path)} for member in members)
    with open_tar(path) as file:
        for sample in group_by_keys(named):
            wanted = [suffix for suffix in suffixes if suffix in sample][:1] + [key for key in sample if key == "cls"]
            found = {key: None if isinstance(value, tarfile.TarInfo) else value for key, value in sample.items()}
            # In the file's order: going back in gzip is to begin again.
            for key in sorted(wanted, key=lambda key: sample[key].offset_data):
                member = sample[key]
                if member.size > max_bytes:
                    raise tarfile.ReadError(f"{member.name!a} has {member.size} bytes, expected at most {max_bytes}")
                file.seek(member.offset_data)
                found[key] = file.read(member.size)
            yield found
