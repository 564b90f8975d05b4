"""Find the images of a data set, with or without labels, in folders, WebDataset tars or CIFAR's files."""

import os
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.errors import PatchSetError
from manifests.foreign.cifar import cifar_files, class_names, read_cifar_file
from manifests.foreign.image_files import (
    ARCHIVE_SUFFIXES,
    StoredImage,
    cifar_images,
    members_of,
    read_member,
    table_images,
    version_of,
)
from manifests.foreign.listing import (
    LeftOut,
    Split,
    SplitFiles,
    choose,
    find_split,
    folder_kind,
    is_visible,
    list_images,
)
from manifests.foreign.tables import PARQUET_SUFFIX, SavedRows, open_rows, read_table, saved_splits
from manifests.support.files import read_regular_file
from manifests.untrusted.decode import image_suffixes, is_image_name

NAME_FILES = ("classes.txt", "classnames.txt")
"""Names of files beside tars. Such a file contains the name of one class in each line, beginning with class 0."""
MAX_NAMES_BYTES = 1 << 22
MAX_LABEL_BYTES = 1000
_META = re.compile(r"__[^/]*__($|/)")  # names of members that WebDataset ignores


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """The images of one split (training or test images) of a data set."""

    images: tuple[StoredImage, ...]
    where: str  # the files or folders that were read
    notes: tuple[str, ...] = ()  # one line for each reason why files were skipped
    unread: tuple[str, ...] = ()  # names of the other splits
    labels: tuple[int, ...] = ()  # class number of each image
    classes: tuple[str, ...] = ()  # name of each class number; empty if unknown
    numbered: bool = True  # False for class folders, because their labels are only positions in ``classes``


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample of a tar: all members with the same name up to the first dot, as in WebDataset."""

    key: str
    images: tuple[StoredImage, ...]
    cls: bytes | None  # the content of the member ``KEY.cls``
    suffixes: tuple[str, ...]  # of all members


def find_images(data: Path) -> ImageData:
    """Return all images in ``data``, a folder, a tar or one file. If ``data`` has splits, return training images."""
    left_out = LeftOut()
    if (files := cifar_files(data, "train")) is not None:
        return ImageData(images=cifar_images(files), where=str(files[0] if len(files) == 1 else files[0].parent))
    if (saved := _saved(data, "train")) is not None:
        return saved
    if data.is_file() and not data.name.lower().endswith(ARCHIVE_SUFFIXES):
        return ImageData(images=(StoredImage(name=data.name, path=str(data)),), where=str(data))
    found = find_split(data, "train", left_out)
    images: list[StoredImage] = []
    for folder in found.folders:
        for name in list_images(folder, left_out, follow=False):
            relative = (folder.relative_to(data) / name).as_posix()
            images.append(StoredImage(name=relative, path=str(folder / name)))
    for tar in found.tars:
        if tar.name.lower().endswith(PARQUET_SUFFIX):
            images += table_images(tar, read_table(tar, with_labels=False)[0])
            continue
        for sample in read_samples(tar, left_out, with_labels=False):
            images += sample.images
            if not sample.images:
                left_out.add("samples without an image", f"{tar}: {sample.key}")
    return _image_data(data, found, left_out, images=tuple(images))


def find_labelled(data: Path, split: Split) -> ImageData | None:
    """Return the images of a split with their labels. Return None if the layout of ``data`` is unknown."""
    if (files := cifar_files(data, split)) is not None:
        return ImageData(
            images=cifar_images(files),
            where=str(files[0] if len(files) == 1 else files[0].parent),
            labels=tuple(label for file in files for label in read_cifar_file(file)[1].tolist()),
            classes=class_names(files[0].parent),
        )
    if (saved := _saved(data, split)) is not None:
        if not saved.labels:
            raise PatchSetError(f"{saved.where}: the saved data set has no column 'label'; add class numbers to it")
        return saved
    if not data.is_dir() and not data.name.lower().endswith(ARCHIVE_SUFFIXES):
        return None
    left_out = LeftOut()
    found = find_split(data, split, left_out)
    if found.tars and found.tars[0].name.lower().endswith(PARQUET_SUFFIX):
        return _labelled_tables(found, left_out, data)
    return _labelled_tars(found, left_out, data) if found.tars else _class_folders(found, left_out, data)


def _saved(data: Path, split: Split) -> ImageData | None:
    """Return the images and labels of a data set that Hugging Face ``datasets`` has saved; None for other data."""
    if not data.is_dir() or (splits := saved_splits(data)) is None:
        return None
    chosen, unread = choose(splits, folder_kind, split, data) if splits else ([""], [])
    if len(chosen) > 1:
        raise PatchSetError(f"{data}: several splits fit ({', '.join(chosen)}); use the folder of one of them")
    folder = data / chosen[0]
    rows = open_rows(str(folder), version_of(str(folder)))
    labels: dict[str, Any] = (
        {"labels": rows.labels or (), "classes": rows.classes} if isinstance(rows, SavedRows) else {}
    )
    images = table_images(folder, len(rows) if isinstance(rows, SavedRows) else 0)
    return ImageData(images=images, where=str(folder), unread=tuple(unread), **labels)


def _labelled_tables(found: SplitFiles, left_out: LeftOut, data: Path) -> ImageData:
    """Return the images, labels and class names in Parquet files, which must have the same class names."""
    tables = {path: read_table(path, with_labels=True) for path in found.tars}
    classes = {path: names for path, (_, _, names) in tables.items()}
    first = found.tars[0]
    if other := next((path for path, names in classes.items() if names != classes[first]), None):
        raise PatchSetError(f"{other}: the class names differ from those of {first.name}; use files of one data set")
    images = tuple(image for path, (rows, _, _) in tables.items() for image in table_images(path, rows))
    labels = tuple(label for _, own, _ in tables.values() for label in own)
    return _image_data(data, found, left_out, images=images, labels=labels, classes=classes[first])


def _image_data(data: Path, found: SplitFiles, left_out: LeftOut, **fields: Any) -> ImageData:
    return ImageData(**{"where": str(found), "notes": tuple(left_out.notes(data)), "unread": found.unread} | fields)


def _labelled_tars(found: SplitFiles, left_out: LeftOut, data: Path) -> ImageData:
    images, labels = [], []
    for tar in found.tars:
        for sample in read_samples(tar, left_out, with_labels=True):
            if sample.cls is None and not sample.images:
                left_out.add("samples with neither an image nor .cls", f"{tar}: {sample.key}")
                continue
            labels.append(_label(sample, f"{tar}: sample {sample.key}"))
            images.append(sample.images[0])
            for other in sample.images[1:]:
                left_out.add("further images of a sample", other.where)
    classes = _names_beside(found.tars[0])
    return _image_data(data, found, left_out, images=tuple(images), labels=tuple(labels), classes=classes)


def _label(sample: Sample, where: str) -> int:
    if sample.cls is None or not sample.images:
        found = ", ".join(f".{suffix}" for suffix in sorted(sample.suffixes))
        raise PatchSetError(f"{where}: the sample has {found}, expected an image and a .cls file; correct the tar")
    text = sample.cls.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise PatchSetError(f"{where}: the class is {text[:20]!r}, expected a whole number from 0; correct the tar")
    return int(text)


def _names_beside(tar: Path) -> tuple[str, ...]:
    for folder in (tar.parent, tar.parent.parent):
        for name in NAME_FILES:
            if (folder / name).is_file():
                text = read_regular_file(folder / name, MAX_NAMES_BYTES).decode("utf-8", "replace")
                return tuple(line.strip() for line in text.splitlines() if line.strip())
    return ()


def _class_folders(found: SplitFiles, left_out: LeftOut, data: Path) -> ImageData | None:
    if len(found.folders) > 1:
        names = ", ".join(folder.name for folder in found.folders)
        raise PatchSetError(f"{data}: several subfolders contain images of one split ({names}); use one of them")
    folder = found.folders[0]
    folders = (path.name for path in folder.iterdir() if path.is_dir() and is_visible(path.name))
    by_class: dict[str, list[str]] = {name: [] for name in folders}
    loose: list[str] = []
    for name in list_images(folder, left_out, follow=True):
        top, slash, _ = name.partition("/")
        (by_class[top] if slash else loose).append(name)
    if not by_class and not loose:
        return None
    _require_classes(folder, by_class, loose)
    for name in loose:
        left_out.add("images beside the class folders", str(folder / name))
    ordered = sorted(by_class, key=lambda name: (int(name), name)) if are_numbers(by_class) else sorted(by_class)
    images = tuple(StoredImage(name=name, path=str(folder / name)) for each in ordered for name in by_class[each])
    labels = tuple(label for label, each in enumerate(ordered) for _ in by_class[each])
    return _image_data(data, found, left_out, images=images, labels=labels, classes=tuple(ordered), numbered=False)


def _require_classes(folder: Path, by_class: dict[str, list[str]], loose: list[str]) -> None:
    if not by_class:
        what = f"the folder contains images ({loose[0]}) and no subfolders"
        raise PatchSetError(f"{folder}: {what}, expected a subfolder for each class; create these subfolders")
    without_images = (name for name, images in by_class.items() if not images and _holds_files(folder / name))
    if name := min(without_images, default=None):
        what = f"the folder contains files but no image, and every subfolder of {folder} must have images"
        raise PatchSetError(f"{folder / name}: {what}; move this folder to another place")
    if shared := _shared_folders(by_class):
        what = f"all subfolders ({', '.join(sorted(by_class)[:3])}) contain the folders {', '.join(shared[:3])}"
        advice = f"use one of the subfolders, such as {folder / min(by_class)}"
        raise PatchSetError(f"{folder}: {what}, so the subfolders are not classes; {advice}")
    if len(by_class) == 1:
        (only,) = by_class
        what = f"the folder contains one subfolder ({only}), expected at least two classes"
        raise PatchSetError(f"{folder}: {what}; use the folder that contains the class folders")


def _shared_folders(by_class: dict[str, list[str]]) -> list[str]:
    """Return the subfolder names that all folders in ``by_class`` share. Folders that share names are splits.

    Return [] if the folders share only one name, such as ``images``, or if a folder contains images directly.
    """
    parts = [[name.split("/") for name in images] for images in by_class.values()]
    if len(parts) < 2 or any(len(part) == 2 for each in parts for part in each):
        return []
    shared = set.intersection(*({part[1] for part in each} for each in parts))
    return sorted(shared) if len(shared) > 1 else []


def _holds_files(folder: Path) -> bool:
    return any(is_visible(name) for _, _, names in os.walk(folder) for name in names)


def are_numbers(names: Sequence[str] | dict[str, list[str]]) -> bool:
    """Return whether all names are whole numbers with different values."""
    plain = all(re.fullmatch(r"[0-9]{1,9}", name) for name in names)
    return plain and len({int(name) for name in names}) == len(names)


def read_samples(path: Path, left_out: LeftOut, *, with_labels: bool) -> list[Sample]:
    """Return the samples of a tar in the order of their first members, and add skipped files to ``left_out``.

    With ``with_labels``, read ``KEY.cls`` too. If a sample has ``KEY.png``, ignore images such as ``KEY.mask.png``.
    """
    try:
        return _samples(path, left_out, with_labels=with_labels)
    except PatchSetError:
        raise
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise PatchSetError(f"{path}: the tar cannot be read: {reason}; download the tar again") from error


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
    """Return a dict from names to regular members. Replace a hard link by the linked member. Skip sparse files."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in members_of(path):
        name = member.name.removeprefix("./")
        target = found.get(member.linkname.removeprefix("./")) if member.islnk() else member
        if target is None or not target.isreg() or target.issparse() or _META.match(name):
            continue
        if name in found:
            raise ValueError(f"two members have the name {name[:100]}")
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
