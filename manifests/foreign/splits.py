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
EVALUATION: tuple[Kind, ...] = ("test", "val")  # evaluation splits; the first that exists is read


def _kind_finder(pattern: str) -> Callable[[str], Kind | None]:
    """Return a function that returns the split whose words, put in place of WORDS, match a whole name."""
    patterns = {
        kind: re.compile(pattern.replace("WORDS", words), re.IGNORECASE | re.DOTALL) for kind, words in _WORDS.items()
    }
    return lambda name: next((kind for kind, compiled in patterns.items() if compiled.fullmatch(name)), None)


folder_kind = _kind_finder(rf"(?:.*[-_. ])?(?:WORDS){_REST}")
"""Return the split that a folder's whole name means, such as ``Training`` or ``ILSVRC2012_img_val``."""
holder_kind = _kind_finder(r"(?:.*[-_. ])?(?:WORDS)(?:[-_. (\d].*)?")
"""Return the split that the name of a folder of folders means: ``train_blurred``, ``training_v2``."""
file_kind = _kind_finder(r"(?:.*[-_. ])?(?:WORDS)(?:set)?(?:[-_. \d].*)?")
"""Return the split that a word in a file's name means, such as in ``cifar10-train-000000.tar``."""


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
    order: tuple[Kind, ...] = ("train",) if split == "train" else EVALUATION
    wanted = next((kind for kind in order if kind in present), None if split == "train" else "test")
    chosen = [name for name in ordered if kinds[name] == wanted]
    if not chosen:
        what = f"holds {', '.join(ordered[:5])}, expected {'training' if split == 'train' else 'evaluation'} data"
        advice = "give the folder or file that is to be read, not the one above it"
        raise PatchSetError(f"{where}: {what} among them; {advice}")
    return chosen, [name for name in ordered if kinds[name] != wanted]
