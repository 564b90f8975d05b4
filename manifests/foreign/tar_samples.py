"""Group the members of a tar into samples, as WebDataset does: their names are equal up to the first dot."""

import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.foreign.image_files import StoredImage, members_of, read_member
from manifests.foreign.listing import LeftOut, is_visible
from manifests.untrusted.decode import image_suffixes, is_image_name

MAX_LABEL_BYTES = 1000
_META = re.compile(r"__[^/]*__($|/)")  # names of members that WebDataset ignores


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample of a tar."""

    key: str
    images: tuple[StoredImage, ...]
    cls: bytes | None  # the content of the member ``KEY.cls``
    suffixes: tuple[str, ...]


def read_samples(path: Path, left_out: LeftOut, *, with_labels: bool) -> list[Sample]:
    """Return the samples of a tar in the order of their first members. Only ``cls`` members are read.

    If a sample has an image such as ``KEY.png``, images such as ``KEY.mask.png`` are ignored.
    """
    try:
        return _samples(path, left_out, with_labels=with_labels)
    except PatchSetError:
        raise
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise PatchSetError(f"{path}: not a whole tar: {reason}; download it again") from error


def _samples(path: Path, left_out: LeftOut, *, with_labels: bool) -> list[Sample]:
    groups: dict[str, dict[str, StoredImage]] = {}
    for name, member in _regular_members(path).items():
        folder, slash, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if all(map(is_visible, name.split("/"))):
            span = {"offset": member.offset_data, "length": member.size}
            stored = StoredImage(name=f"{path.name}/{name}", path=str(path), kind="member", **span)
            groups.setdefault(f"{folder}{slash}{stem}", {})[suffix.lower()] = stored
        elif is_image_name(name):
            left_out.add("hidden images", f"{path}: {name}")
    return [_sample(key, group, with_labels=with_labels) for key, group in groups.items()]


def _regular_members(path: Path) -> dict[str, tarfile.TarInfo]:
    """Return a dict of the regular members by name. A hard link becomes its target. Sparse files are skipped."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in members_of(path):
        name = member.name.removeprefix("./")
        target = found.get(member.linkname.removeprefix("./")) if member.islnk() else member
        if target is None or not target.isreg() or target.issparse() or _META.match(name):
            continue
        if name in found:
            raise ValueError(f"the name {name[:100]} appears twice")
        found[name] = target
    return found


def _sample(key: str, group: dict[str, StoredImage], *, with_labels: bool) -> Sample:
    exact = [suffix for suffix in group if f".{suffix}" in image_suffixes()]
    images = exact or [suffix for suffix in group if is_image_name(f".{suffix}")]
    cls = group.get("cls") if with_labels else None
    if cls is not None and cls.length > MAX_LABEL_BYTES:
        raise tarfile.ReadError(f"{key[:100]}.cls has {cls.length} bytes, expected at most {MAX_LABEL_BYTES}")
    return Sample(
        key=key,
        images=tuple(group[suffix] for suffix in images),
        cls=None if cls is None else read_member(cls.path, cls.offset, cls.length),
        suffixes=tuple(group),
    )
