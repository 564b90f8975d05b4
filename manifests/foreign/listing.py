"""Find the files of a split in a folder: its split folders, its tars, and every image file below it."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from manifests.errors import PatchSetError
from manifests.foreign.splits import EVALUATION, Kind, Split, choose, file_kind, folder_kind, holder_kind
from manifests.foreign.tar_members import TAR_SUFFIXES
from manifests.support.system_files import is_system_file
from manifests.untrusted.decode import is_image_name

NO_FORMAT = "no format that is read"


@dataclasses.dataclass
class LeftOut:
    """Collects the names of files that are not read, by reason, for one note each."""

    names: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Add a file that is left out."""
        self.names.setdefault(reason, []).append(name)

    def notes(self, where: Path) -> list[str]:
        """Return one line for each reason, with the number of files and the first name."""
        lines = []
        for reason, names in self.names.items():
            suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
            listed = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(12))
            of = f": {listed}" if reason == NO_FORMAT else ""
            lines.append(f"{where}: {len(names)} left out ({reason}{of}), such as {min(names)}")
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitFiles:
    """The ``folders`` of images, or the ``tars``, of one split; ``unread`` names the other splits."""

    folders: tuple[Path, ...] = ()
    tars: tuple[Path, ...] = ()
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        paths = self.folders or self.tars
        return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def is_visible(name: str) -> bool:
    """Return whether a file or folder of this name is read: it is neither hidden nor a system file."""
    return not name.startswith(".") and not is_system_file(name)


def find_split(data: Path, split: Split, left_out: LeftOut) -> SplitFiles:
    """Find the folders or tars of ``split`` in a folder; a tar is a split by itself."""
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
            left_out.add("beside the splits", str(data / name))
        without_tars = tuple(folder for folder in inner if not inner[folder])
        return SplitFiles(folders=without_tars, tars=sum(inner.values(), ()), unread=unread)
    if not tars:
        return SplitFiles(folders=(data,))
    chosen, rest = choose([path.name for path in tars], file_kind, split, data)
    _require_no_images(data, chosen[0])
    return SplitFiles(tars=tuple(data / name for name in chosen), unread=tuple(rest))


def _usable_kinds(data: Path, kinds: dict[str, Kind], split: Split) -> dict[str, Kind]:
    """For evaluation, mark splits without folders and tars as "other" if a split with them exists.

    ImageNet's test images have no labels, so they are in no class folders.
    """
    labelled = {name for name, kind in kinds.items() if kind in EVALUATION and any(_entries(data / name))}
    if split == "train" or not labelled:
        return kinds
    return {name: kind if kind not in EVALUATION or name in labelled else "other" for name, kind in kinds.items()}


def _require_no_images(folder: Path, tar: str) -> None:
    if image := next(iter(list_images(folder, LeftOut(), follow=False)), None):
        raise PatchSetError(f"{folder}: holds tars ({tar}) and images ({image}); give a folder of one kind")


def _entries(folder: Path) -> tuple[list[str], list[Path]]:
    """Return the names of visible sub-folders, and the visible tars."""
    visible = [path for path in folder.iterdir() if is_visible(path.name)]
    tars = [path for path in visible if path.name.lower().endswith(TAR_SUFFIXES) and path.is_file()]
    return [path.name for path in visible if path.is_dir()], tars


def split_kinds(folder: Path, names: Sequence[str]) -> dict[str, Kind]:
    """Return the sub-folders that are splits, and their kinds; an empty dict if they are classes.

    A class may be called "train" or "test". So a sub-folder with the name of a split is one only if it contains
    folders or tars, or if there are names of a training and of an evaluation split, or no other names at all. Folders
    called "extra" or "unlabeled" alone are not splits.
    """
    named = {name: kind for name in names if (kind := folder_kind(name))}
    possible = {name: kind for name in names if (kind := holder_kind(name)) not in (None, "other")}
    holders = {name: kind for name, kind in possible.items() if kind and any(_entries(folder / name))}
    present = set(named.values()) - {"other"}
    both = "train" in present and bool(present - {"train"})
    return named | holders if holders or both or (present and len(named) == len(names)) else {}


def list_images(folder: Path, left_out: LeftOut, *, follow: bool) -> list[str]:
    """Return the relative paths of all images below a folder, in order; each real folder is entered once.

    Links to files are followed. Links to folders outside are followed only with ``follow``: a packed set is
    published, and must not contain what a link of somebody else points to.
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
            what = f"holds the splits {', '.join(splits[:4])}"
            raise PatchSetError(f"{root}: {what}; give this folder instead of {folder}")
        found += [below / name for name in names if _is_read(Path(root) / name, left_out)]
    return sorted(path.as_posix() for path in found)


def _entered(root: Path, names: list[str], top: str, left_out: LeftOut, *, follow: bool) -> Iterator[str]:
    """Yield the sub-folders of ``root`` to enter."""
    for name in names:
        path = root / name
        if not is_visible(name):
            with os.scandir(path) as entries:
                if any(is_image_name(entry.name) for entry in entries):
                    left_out.add("hidden folders", str(path))
        elif not follow and path.is_symlink() and os.path.commonpath([os.path.realpath(path), top]) != top:
            left_out.add("links to folders outside are not followed; copy such a folder", str(path))
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
