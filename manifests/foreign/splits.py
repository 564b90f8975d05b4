"""Tell by its name to which split a folder, tar or file belongs."""

import re
from collections.abc import Callable, Iterable
from typing import Literal

from manifests.errors import PatchSetError

Split = Literal["train", "test"]
Kind = Literal["train", "test", "val", "other"]

_WORDS: dict[Kind, str] = {
    "train": "train|training|trainval|trn",
    "test": "test|testing|tst",
    "val": "val|valid|validation|dev|eval|evaluation|holdout",
    "other": "extra|unlabel(?:l)?ed|unsup|unsupervised",
}
_REST = r"(?:[-_. ]?(?:sets?|splits?|data|images?|imgs?|jpe?gs?|pngs?|\d+(?:x\d+|px)?|[a-d]))*"
"""Endings of a split folder's name: ``val2017``, ``Train_images``, ``test_32x32``, ``trainA``."""
_ANY_REST = r"(?:[-_. (\d].*)?"
"""Endings of the name of a folder that contains folders: ``train_blurred``, ``training_v2``."""
_FOLDERS = {
    kind: re.compile(rf"(?:.*[-_. ])?(?:{words}){_REST}", re.IGNORECASE | re.DOTALL) for kind, words in _WORDS.items()
}
_HOLDERS = {
    kind: re.compile(rf"(?:.*[-_. ])?(?:{words}){_ANY_REST}", re.IGNORECASE | re.DOTALL)
    for kind, words in _WORDS.items()
}
_FILES = {
    kind: re.compile(rf"(?:^|[-_. ])(?:{words})(?:set)?(?:[-_. ]|\d|$)", re.IGNORECASE)
    for kind, words in _WORDS.items()
}
EVALUATION: tuple[Kind, ...] = ("test", "val")  # evaluation splits; the first that exists is read


def folder_kind(name: str) -> Kind | None:
    """Return the split that a folder's whole name means, such as ``Training`` or ``ILSVRC2012_img_val``."""
    return next((kind for kind, pattern in _FOLDERS.items() if pattern.fullmatch(name)), None)


def holder_kind(name: str) -> Kind | None:
    """Return the split that the name of a folder of folders means, also if other words follow."""
    return next((kind for kind, pattern in _HOLDERS.items() if pattern.fullmatch(name)), None)


def file_kind(name: str) -> Kind | None:
    """Return the split that a word in a file's name means, such as in ``cifar10-train-000000.tar``."""
    return next((kind for kind, pattern in _FILES.items() if pattern.search(name)), None)


def choose(
    names: Iterable[str], kind_of: Callable[[str], Kind | None], split: Split, where: object
) -> tuple[list[str], list[str]]:
    """Divide names into those of ``split`` and the others, both sorted.

    Evaluation uses the test names, or else the validation names. If no name is of a split, all names are of every
    split. If there is no training name, names of no split are training names.
    """
    ordered = sorted(names)
    kinds = {name: kind_of(name) for name in ordered}
    present = set(kinds.values()) - {None}
    if not present & {"train", "test", "val"}:
        return ordered, []
    wanted: Kind | None
    if split == "train":
        wanted = "train" if "train" in present else None
    else:
        wanted = next((kind for kind in EVALUATION if kind in present), "test")
    chosen = [name for name in ordered if kinds[name] == wanted]
    if not chosen:
        what = "training" if split == "train" else "evaluation"
        raise PatchSetError(
            f"{where}: holds {', '.join(ordered[:5])}, expected {what} data among them; "
            "give the folder or file that is to be read, not the one above it"
        )
    return chosen, [name for name in ordered if kinds[name] != wanted]
