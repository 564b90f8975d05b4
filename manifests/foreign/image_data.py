"""Data sets of images as people have them: folders, WebDataset tars, CIFAR's files; with labels or without."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.foreign.cifar import cifar_files, class_names, read_cifar_file
from manifests.foreign.image_files import StoredImage, cifar_images, file_image
from manifests.foreign.listing import LeftOut, Place, find_place, is_visible, list_images
from manifests.foreign.splits import Split
from manifests.foreign.tar_members import TAR_SUFFIXES
from manifests.foreign.tar_samples import Sample, read_samples
from manifests.support.files import read_regular_file

NAME_FILES = ("classes.txt", "classnames.txt")
"""Beside tars: the names of their classes, one a line, from class 0 on."""
MAX_NAMES_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """The images of one split.

    ``labels`` has a number for each image, and ``classes`` the name of each number, as far as they are known. Of a
    folder of class folders, the number is only the place of the name in ``classes``: ``numbered`` is false. ``where``
    says what was read, ``unread`` which other splits were not, and ``notes`` what was left out, in a line each.
    """

    images: tuple[StoredImage, ...]
    where: str
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    numbered: bool = True


def find_images(data: Path) -> ImageData:
    """Find every image in ``data`` by name order; of data with splits, the training images alone.

    Raises:
        PatchSetError: there is no image, or something is damaged.
        OSError: something cannot be read.
    """
    left_out = LeftOut()
    if (files := cifar_files(data, "train")) is not None:
        return ImageData(images=tuple(cifar_images(files)), where=_named(files))
    if data.is_file() and not data.name.lower().endswith(TAR_SUFFIXES):
        return ImageData(images=(file_image(data, data.name),), where=str(data))
    place = find_place(data, "train", left_out)
    images: list[StoredImage] = []
    for folder in place.folders:
        below = folder.relative_to(data)
        images += [
            file_image(folder / name, (below / name).as_posix())
            for name in list_images(folder, left_out, follow=False)
        ]
    for tar in place.tars:
        for sample in read_samples(tar, left_out, with_labels=False):
            images += sample.images
            if not sample.images:
                left_out.add("samples without an image", f"{tar}: {sample.key}")
    return ImageData(images=tuple(images), where=str(place), notes=tuple(left_out.notes(data)), unread=place.unread)


def find_labelled(data: Path, split: Split) -> ImageData | None:
    """Find the images of a split with their labels; None where ``data`` has none of the known forms.

    Raises:
        PatchSetError: the data has no such split, no classes, or something is damaged.
        OSError: something cannot be read.
    """
    if (files := cifar_files(data, split)) is not None:
        labels = [label for file in files for label in read_cifar_file(file)[1].tolist()]
        return ImageData(
            images=tuple(cifar_images(files)),
            where=_named(files),
            labels=tuple(labels),
            classes=class_names(files[0].parent),
        )
    if not data.is_dir() and not data.name.lower().endswith(TAR_SUFFIXES):
        return None
    left_out = LeftOut()
    place = find_place(data, split, left_out)
    return _labelled_tars(place, left_out, data) if place.tars else _class_folders(place, left_out, data)


def _named(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else str(files[0].parent)


def _labelled_tars(place: Place, left_out: LeftOut, data: Path) -> ImageData:
    images, labels = [], []
    for tar in place.tars:
        for sample in read_samples(tar, left_out, with_labels=True):
            if sample.cls is None and not sample.images:
                left_out.add("samples with neither an image nor .cls", f"{tar}: {sample.key}")
                continue
            labels.append(_label(sample, f"{tar}: sample {sample.key}"))
            images.append(sample.images[0])
            for other in sample.images[1:]:
                left_out.add("further images of a sample", other.where)
    return ImageData(
        images=tuple(images),
        where=str(place),
        notes=tuple(left_out.notes(data)),
        unread=place.unread,
        labels=tuple(labels),
        classes=_names_beside(place.tars[0]),
    )


def _label(sample: Sample, where: str) -> int:
    if sample.cls is None or not sample.images:
        raise PatchSetError(f"{where}: holds {', '.join(sorted(sample.suffixes))}, expected an image and .cls")
    text = sample.cls.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise PatchSetError(f"{where}: .cls is {text[:20]!r}, expected a class number counted from 0")
    return int(text)


def _names_beside(tar: Path) -> tuple[str, ...]:
    for folder in (tar.parent, tar.parent.parent):
        for name in NAME_FILES:
            if (folder / name).is_file():
                text = read_regular_file(folder / name, MAX_NAMES_BYTES).decode("utf-8", "replace")
                return tuple(line.strip() for line in text.splitlines() if line.strip())
    return ()


def _class_folders(place: Place, left_out: LeftOut, data: Path) -> ImageData | None:
    if len(place.folders) > 1:
        names = ", ".join(folder.name for folder in place.folders)
        raise PatchSetError(f"{data}: holds several folders of this split ({names}); give one of them")
    folder = place.folders[0]
    of_class: dict[str, list[str]] = {
        path.name: [] for path in folder.iterdir() if path.is_dir() and is_visible(path.name)
    }
    loose: list[str] = []
    for name in list_images(folder, left_out, follow=True):
        top, slash, _ = name.partition("/")
        (of_class[top] if slash else loose).append(name)
    if not of_class and not loose:
        return None
    _require_classes(folder, of_class, loose)
    for name in loose:
        left_out.add("images beside the class folders", str(folder / name))
    classes = order_classes(of_class)
    pairs = [(name, label) for label, each in enumerate(classes) for name in of_class[each]]
    return ImageData(
        images=tuple(file_image(folder / name, name) for name, _ in pairs),
        where=str(folder),
        notes=tuple(left_out.notes(data)),
        unread=place.unread,
        labels=tuple(label for _, label in pairs),
        classes=classes,
        numbered=False,
    )


def _require_classes(folder: Path, of_class: dict[str, list[str]], loose: list[str]) -> None:
    if not of_class:
        raise PatchSetError(
            f"{folder}: holds images ({loose[0]}) and no sub-folders, expected one sub-folder of images a class"
        )
    strange = (name for name, images in of_class.items() if not images and _holds_files(folder / name))
    if name := min(strange, default=None):  # an empty folder is a class without images
        raise PatchSetError(
            f"{folder / name}: holds files and no image, but every sub-folder of {folder} is a class; move it away"
        )
    if shared := _shared_folders(of_class):
        raise PatchSetError(
            f"{folder}: its sub-folders {', '.join(sorted(of_class)[:3])} all hold {', '.join(shared[:3])}, as "
            f"splits hold classes; give one of them, such as {folder / min(of_class)}"
        )
    if len(of_class) == 1:
        (only,) = of_class
        raise PatchSetError(
            f"{folder}: holds one sub-folder ({only}), expected one a class and at least two; "
            f"if the classes are in it, give {folder / only}"
        )


def _shared_folders(of_class: dict[str, list[str]]) -> list[str]:
    """Return the folders that all class folders hold, if these hold nothing but folders and share several.

    Only one that is shared, such as ``images``, is usual.
    """
    parts = [[name.split("/") for name in images] for images in of_class.values()]
    if len(parts) < 2 or any(len(part) == 2 for each in parts for part in each):
        return []
    shared = set.intersection(*({part[1] for part in each} for each in parts))
    return sorted(shared) if len(shared) > 1 else []


def _holds_files(folder: Path) -> bool:
    return any(is_visible(name) for _, _, names in os.walk(folder) for name in names)


def order_classes(names: Sequence[str] | dict[str, list[str]]) -> tuple[str, ...]:
    """Return class names in their order: whole numbers by value where all are such, else by their characters."""
    if are_numbers(names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def are_numbers(names: Sequence[str] | dict[str, list[str]]) -> bool:
    """Return whether every class name is a whole number, and each another one."""
    plain = all(re.fullmatch(r"[0-9]{1,9}", name) for name in names)
    return plain and len({int(name) for name in names}) == len(names)
