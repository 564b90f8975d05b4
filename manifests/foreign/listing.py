"""Find the images of a split in a folder: its splits, its tars, and every image file below it."""

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
    """What was found and is not read, by reason, for one note each."""

    names: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count ``name`` among what is left out for ``reason``."""
        self.names.setdefault(reason, []).append(name)

    def notes(self, where: Path) -> list[str]:
        """Return a line a reason, with a count and the first name."""
        lines = []
        for reason, names in self.names.items():
            kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
            listed = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(12))
            of = f": {listed}" if reason == NO_FORMAT else ""
            lines.append(f"{where}: {len(names)} left out ({reason}{of}), such as {min(names)}")
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where the images of one split are: ``folders`` of images, or ``tars``; ``unread`` names the other splits."""

    folders: tuple[Path, ...] = ()
    tars: tuple[Path, ...] = ()
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        paths = self.folders or self.tars
        return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def is_visible(name: str) -> bool:
    """Return whether a file or folder of this name is looked at: it is neither hidden nor made by a system."""
    return not name.startswith(".") and not is_system_file(name)


def find_place(data: Path, split: Split, left_out: LeftOut) -> Place:
    """Return where the images of ``split`` are in a tar or a folder.

    Raises:
        PatchSetError: the folder has splits, but not this one, or images and tars side by side.
        OSError: it cannot be read.
    """
    if not data.is_dir():
        return Place(tars=(data,))
    folders, tars = _entries(data)
    if kinds := split_kinds(data, folders):
        chosen, rest = choose(folders, _for_reading(data, kinds, split).get, split, data)
        inner = [_inside(data / name) for name in chosen]
        found = Place(
            folders=sum((place.folders for place in inner), ()),
            tars=sum((place.tars for place in inner), ()),
            unread=tuple(name for name in rest if kinds.get(name, "other") != "other"),
        )
        for name in [*sorted(set(rest) - set(found.unread)), *sorted(path.name for path in tars)]:
            left_out.add("beside the splits", str(data / name))
        return found
    if not tars:
        return _inside(data)
    chosen, rest = choose([path.name for path in tars], file_kind, split, data)
    return dataclasses.replace(_inside(data, tuple(data / name for name in chosen)), unread=tuple(rest))


def _for_reading(data: Path, kinds: dict[str, Kind], split: Split) -> dict[str, Kind]:
    """Return the kinds of splits; for evaluation without those that hold neither folders nor tars, if others do.

    ImageNet's test images have no labels, so that they lie in no folders.
    """
    labelled = {name for name, kind in kinds.items() if kind in EVALUATION and any(_entries(data / name))}
    if split == "train" or not labelled:
        return kinds
    return {name: kind if kind not in EVALUATION or name in labelled else "other" for name, kind in kinds.items()}


def _inside(folder: Path, tars: tuple[Path, ...] | None = None) -> Place:
    """Return the place that a folder without splits is: its tars, or itself where it holds none."""
    tars = tuple(sorted(_entries(folder)[1])) if tars is None else tars
    if not tars:
        return Place(folders=(folder,))
    if image := next(iter(list_images(folder, LeftOut(), follow=False)), None):
        raise PatchSetError(f"{folder}: holds tars ({tars[0].name}) and images ({image}); give a folder of one kind")
    return Place(tars=tars)


def _entries(folder: Path) -> tuple[list[str], list[Path]]:
    """Return the names of visible sub-folders, and the visible tars."""
    visible = [path for path in folder.iterdir() if is_visible(path.name)]
    tars = [path for path in visible if path.name.lower().endswith(TAR_SUFFIXES) and path.is_file()]
    return [path.name for path in visible if path.is_dir()], tars


def split_kinds(folder: Path, names: Sequence[str]) -> dict[str, Kind]:
    """Return which of a folder's sub-folders are splits, and of which kind; none where they are classes.

    A class may be called "train" or "test". So a sub-folder with the name of a split is one only if it holds folders
    or tars, or if there are names of a training and of an evaluation split, or no other names at all. Folders called
    "extra" or "unlabeled" alone make no splits.
    """
    named: dict[str, Kind] = {name: kind for name in names if (kind := folder_kind(name))}
    holders: dict[str, Kind] = {
        name: kind
        for name in names
        if (kind := holder_kind(name)) and kind != "other" and any(_entries(folder / name))
    }
    present = set(named.values()) - {"other"}
    both = "train" in present and bool(present - {"train"})
    return named | holders if holders or both or (present and len(named) == len(names)) else {}


def list_images(folder: Path, left_out: LeftOut, *, follow: bool) -> list[str]:
    """Return the paths of all images below a folder, relative to it, in order; each real folder is entered once.

    Links to files are followed. Links to folders outside are followed only if ``follow`` is set: a set that is packed
    will be published, and must not take in what a link of somebody else points to.

    Raises:
        PatchSetError: a folder below has splits of its own, so that its images are not of one split.
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    top, seen, found = os.path.realpath(folder), set(), []
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        below = Path(root).relative_to(folder)
        real = os.path.realpath(root)
        entered = [] if real in seen else list(_entered(Path(root), folders, top, left_out, follow=follow))
        if real in seen:
            names.clear()
        seen.add(real)
        if below.parts and (splits := sorted(split_kinds(Path(root), entered))):
            raise PatchSetError(
                f"{root}: holds the splits {', '.join(splits[:4])}; give this folder instead of {folder}"
            )
        folders[:] = sorted(entered)
        found += [below / name for name in names if _is_read(Path(root) / name, left_out)]
    return sorted(path.as_posix() for path in found)


def _entered(root: Path, names: list[str], top: str, left_out: LeftOut, *, follow: bool) -> Iterator[str]:
    for name in names:
        path = root / name
        if not is_visible(name):
            with os.scandir(path) as entries:
                if any(is_image_name(entry.name) for entry in entries):
                    left_out.add("hidden folders", str(path))
        elif not follow and path.is_symlink() and not _is_inside(path, top):
            left_out.add("links to folders outside are not followed; copy such a folder", str(path))
        else:
            yield name


def _is_inside(path: Path, top: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), top]) == top


def _is_read(path: Path, left_out: LeftOut) -> bool:
    if is_image_name(path.name):
        if is_visible(path.name):
            return True
        left_out.add("hidden images", str(path))
    elif is_visible(path.name):
        left_out.add(NO_FORMAT, str(path))
    return False
