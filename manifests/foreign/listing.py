"""Find the files of a split in a folder: split folders, tars, and image files."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from manifests.errors import PatchSetError
from manifests.foreign.image_files import TAR_SUFFIXES
from manifests.foreign.tables import PARQUET_SUFFIX
from manifests.support.system_files import is_system_file
from manifests.untrusted.decode import is_image_name

Split = Literal["train", "test"]
Kind = Literal["train", "test", "val", "other"]

_WORDS: dict[Kind, str] = {
    "train": "train|training|trainval|trn",
    "test": "test|testing|tst",
    "val": "val|valid|validation|dev|eval|evaluation|holdout",
    "other": "extra|unlabel(?:l)?ed|unsup|unsupervised",
}
_REST = r"(?:[-_. ]?(?:sets?|splits?|data|images?|imgs?|jpe?gs?|pngs?|\d+(?:x\d+|px)?|[a-d]))*"
"""Endings of the name of a split folder, as in ``val2017``, ``Train_images``, ``test_32x32`` and ``trainA``."""
EVALUATION: tuple[Kind, ...] = ("test", "val")  # splits for evaluation; the first existing split is read


def _kind_finder(pattern: str) -> Callable[[str], Kind | None]:
    """Return a function that maps a name to a split or None. WORDS in ``pattern`` matches a word such as train."""
    flags = re.IGNORECASE | re.DOTALL
    patterns = {kind: re.compile(pattern.replace("WORDS", words), flags) for kind, words in _WORDS.items()}
    return lambda name: next((kind for kind, compiled in patterns.items() if compiled.fullmatch(name)), None)


folder_kind = _kind_finder(rf"(?:.*[-_. ])?(?:WORDS){_REST}")
"""Return the split of a folder from its whole name, such as ``Training`` or ``ILSVRC2012_img_val``."""
holder_kind = _kind_finder(r"(?:.*[-_. ])?(?:WORDS)(?:[-_. (\d].*)?")
"""Return the split of a folder of folders or tars from its name, such as ``train_blurred`` or ``training_v2``."""
file_kind = _kind_finder(r"(?:.*[-_. ])?(?:WORDS)(?:set)?(?:[-_. \d].*)?")
"""Return the split of a file from a word in its name, as in ``cifar10-train-000000.tar``."""

NO_FORMAT = "files of no known image format"


@dataclasses.dataclass
class LeftOut:
    """Collects the names of skipped files, and writes one note for each reason."""

    names: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Record that the file ``name`` is skipped."""
        self.names.setdefault(reason, []).append(name)

    def notes(self, where: Path) -> list[str]:
        """Return a line for each reason: ``where``, the number of skipped files, the reason, and the first name."""
        lines = []
        for reason, names in self.names.items():
            suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
            listed = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(12))
            of = f": {listed}" if reason == NO_FORMAT else ""
            lines.append(f"{where}: skipped {len(names)} ({reason}{of}), such as {min(names)}")
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFiles:
    """The folders or the tars that contain the images of one split."""

    folders: tuple[Path, ...] = ()
    tars: tuple[Path, ...] = ()
    unread: tuple[str, ...] = ()  # names of the other splits

    def __str__(self) -> str:
        paths = self.folders or self.tars
        return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def is_visible(name: str) -> bool:
    """Return whether a file is neither hidden nor a system file. Hidden files and system files are not read."""
    return not name.startswith(".") and not is_system_file(name)


def choose(
    names: Iterable[str], kind_of: Callable[[str], Kind | None], split: Split, where: Path
) -> tuple[list[str], list[str]]:
    """Return the names of ``split``, and all other names, both sorted. ``kind_of`` maps a name to its split.

    If no name is for training, test or validation, return all names. If no name is for training, names without a
    split are training names. If no name is for test, validation names are test names.
    """
    ordered = sorted(names)
    kinds = {name: kind_of(name) for name in ordered}
    present = set(kinds.values()) - {None}
    if not present & {"train", "test", "val"}:
        return ordered, []
    order: tuple[Kind, ...] = ("train",) if split == "train" else EVALUATION
    wanted = next((kind for kind in order if kind in present), None if split == "train" else "test")
    chosen = [name for name in ordered if kinds[name] == wanted]
    if not chosen:
        kind = "training" if split == "train" else "evaluation"
        what = f"the folder contains {', '.join(ordered[:5])}, expected {kind} data"
        raise PatchSetError(f"{where}: {what}; use the folder or tar that contains the {kind} data")
    return chosen, [name for name in ordered if kinds[name] != wanted]


def find_split(data: Path, split: Split, left_out: LeftOut) -> SplitFiles:
    """Find the folders or tars of ``split`` in the folder ``data``. If ``data`` is a tar, return only this tar."""
    if not data.is_dir():
        return SplitFiles(tars=(data,))
    folders, tars = _entries(data)
    if kinds := split_kinds(data, folders):
        chosen, rest = choose(folders, _usable_kinds(data, kinds, split).get, split, data)
        inner = {data / name: tuple(sorted(_entries(data / name)[1])) for name in chosen}
        for folder, inner_tars in inner.items():
            if inner_tars:
                _require_no_images(folder, inner_tars[0].name)
        unread = tuple(name for name in rest if kinds.get(name, "other") != "other")
        for name in [*sorted(set(rest) - set(unread)), *sorted(path.name for path in tars)]:
            left_out.add("files and folders beside the splits", str(data / name))
        without_tars = tuple(folder for folder in inner if not inner[folder])
        return SplitFiles(folders=without_tars, tars=sum(inner.values(), ()), unread=unread)
    if not tars:
        return SplitFiles(folders=(data,))
    chosen, rest = choose([path.name for path in tars], file_kind, split, data)
    _require_no_images(data, chosen[0])
    return SplitFiles(tars=tuple(data / name for name in chosen), unread=tuple(rest))


def _usable_kinds(data: Path, kinds: dict[str, Kind], split: Split) -> dict[str, Kind]:
    """Return ``kinds``. If only some evaluation splits have labels, change the kind of the others to "other".

    A split with labels contains folders or tars. ImageNet's test split, for example, has no labels and no folders.
    """
    labelled = {name for name, kind in kinds.items() if kind in EVALUATION and any(_entries(data / name))}
    if split == "train" or not labelled:
        return kinds
    return {name: kind if kind not in EVALUATION or name in labelled else "other" for name, kind in kinds.items()}


def _require_no_images(folder: Path, tar: str) -> None:
    if image := next(iter(list_images(folder, LeftOut(), follow=False)), None):
        what = f"the folder contains tars ({tar}) and images ({image})"
        raise PatchSetError(f"{folder}: {what}; use a folder with only tars or only images")


def _entries(folder: Path) -> tuple[list[str], list[Path]]:
    """Return the names of the visible subfolders, and the tars. Parquet files count as tars if there is nothing else.

    Image folders and patch sets may have Parquet files beside their images.
    """
    visible = [path for path in folder.iterdir() if is_visible(path.name)]
    folders = [path.name for path in visible if path.is_dir()]
    tars = [path for path in visible if path.name.lower().endswith(TAR_SUFFIXES) and path.is_file()]
    if not tars and not folders and not any(is_image_name(path.name) for path in visible):
        tars = [path for path in visible if path.name.lower().endswith(PARQUET_SUFFIX) and path.is_file()]
    return folders, tars


def split_kinds(folder: Path, names: Sequence[str]) -> dict[str, Kind]:
    """Return a dict from the names of split folders to their kinds. Return {} if the subfolders are classes.

    A class may have the name "train" or "test". Therefore subfolders with such names are splits only if one of them
    contains folders or tars, if training and evaluation both have a subfolder, or if all subfolders have such names.
    Subfolders with names such as "extra" and "unlabeled" are splits only beside other splits.
    """
    named = {name: kind for name in names if (kind := folder_kind(name))}
    possible = {name: kind for name in names if (kind := holder_kind(name)) not in (None, "other")}
    holders = {name: kind for name, kind in possible.items() if kind and any(_entries(folder / name))}
    present = set(named.values()) - {"other"}
    both = "train" in present and bool(present - {"train"})
    return named | holders if holders or both or (present and len(named) == len(names)) else {}


def list_images(folder: Path, left_out: LeftOut, *, follow: bool) -> list[str]:
    """Return the sorted relative paths of all images below a folder.

    With ``follow``, links to folders outside ``folder`` are followed. ``patchgen pack`` does not follow them, so that
    no image from outside the folder is published. Links to files are always followed.
    """

    def fail(error: OSError) -> None:
        raise error

    top, seen, found = os.path.realpath(folder), set(), []
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        below = Path(root).relative_to(folder)
        folders[:] = sorted(_entered(Path(root), folders, top, left_out, follow=follow))
        if below.parts and (splits := sorted(split_kinds(Path(root), folders))):
            what = f"the folder contains the splits {', '.join(splits[:4])}"
            raise PatchSetError(f"{root}: {what}; use this folder instead of {folder}")
        found += [below / name for name in names if _is_read(Path(root) / name, left_out)]
    return sorted(path.as_posix() for path in found)


def _entered(root: Path, names: list[str], top: str, left_out: LeftOut, *, follow: bool) -> Iterator[str]:
    for name in names:
        path = root / name
        if not is_visible(name):
            if any(is_image_name(hidden.name) for hidden in path.iterdir()):
                left_out.add("hidden folders", str(path))
        elif not follow and path.is_symlink() and os.path.commonpath([os.path.realpath(path), top]) != top:
            left_out.add("links to folders outside are not followed; copy these folders", str(path))
        else:
            yield name


def _is_read(path: Path, left_out: LeftOut) -> bool:
    if is_image_name(path.name):
        if is_visible(path.name):
            return True
        left_out.add("hidden images", str(path))
    elif is_visible(path.name):
        left_out.add(NO_FORMAT, str(path))
    return False
