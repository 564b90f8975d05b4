"""The type of a hostile case, and the commands of users that read hostile files."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

NORM = ("--mean", "0.5,0.4,0.3", "--std", "0.2,0.25,0.3")
_RUN = ("--config", "config.yaml", "--device", "cpu")
_TRAIN = ("distill", "train", "--shards", "set", *_RUN)
_TEACHER = ("--teacher", "teacher.safetensors")
_EVAL = ("distill", "eval", "--data", "eval.tar", "--device", "cpu")

ENTRANCES: dict[str, tuple[str, ...]] = {
    "verify": ("patchgen", "verify", "set", "--workers", "1"),
    "fast": ("patchgen", "verify", "set", "--fast"),
    "info": ("patchgen", "info", "set"),
    "diff": ("patchgen", "diff", "set", "same"),
    "preview": ("patchgen", "preview", "set", "--out", "out.png"),
    "rebuild": ("patchgen", "rebuild", "--manifest", "set", "--image", "photo.png", "--out", "out", "--workers", "1"),
    "extend": ("patchgen", "extend", "set", "--n", "8", "--image", "photo.png", "--workers", "1"),
    "pack": ("patchgen", "pack", "images", "--out", "out", "--workers", "1"),
    "pack-tar": ("patchgen", "pack", "images.tar", "--out", "out", "--workers", "1"),
    "pack-cifar": ("patchgen", "pack", "cifar", "--out", "out", "--workers", "1"),
    "pack-parquet": ("patchgen", "pack", "rows.parquet", "--out", "out", "--workers", "1"),
    "recipe": (
        *("patchgen", "build", "--image", "photo.png", "--n", "4", "--workers", "1"),
        *("--recipe", "recipe.yaml", "--out", "out"),
    ),
    "open": ("python", "-m", "tests.hostile.opening", "set"),
    "train": (*_TRAIN, *_TEACHER, "--out", "out"),
    "stream": (*_TRAIN, *_TEACHER, "--out", "out", "--set", "data.cache=none"),
    "teach-pt": (*_TRAIN, "--teacher", "weights.pt", *("--set", "teacher.mean=[0.5,0.4,0.3]"), "--out", "out"),
    "stored": (*_TRAIN, "--teacher-logits", "labels", "--out", "out"),
    "resume": (*_TRAIN, *_TEACHER, "--resume", "--out", "run"),
    "label": ("distill", "make-logits", "--shards", "set", *_RUN, *_TEACHER, "--out", "out"),
    "recheck": ("distill", "verify-logits", "labels", "--shards", "set", *_RUN, *_TEACHER),
    "eval": (*_EVAL, "--weights", "teacher.safetensors"),
    "eval-pt": (*_EVAL, "--weights", "weights.pt", "--arch", "resnet8", *NORM),
    "eval-cifar": (
        *("distill", "eval", "--data", "cifar", "--device", "cpu"),
        *("--weights", "teacher.safetensors"),
    ),
    "eval-folder": (
        *("distill", "eval", "--data", "classes", "--device", "cpu"),
        *("--weights", "teacher.safetensors"),
    ),
    "eval-parquet": (
        *("distill", "eval", "--data", "rows.parquet", "--device", "cpu"),
        *("--weights", "teacher.safetensors"),
    ),
    "convert": ("distill", "convert", "weights.pt", "--arch", "resnet8", *NORM, "--out", "out.safetensors"),
    "report": ("distill", "report", "run"),
}
"""Commands of users. They run in a folder with the good files of ``world``. A case replaces one of these files."""
ENTRANCES["teach-pt"] = (*ENTRANCES["teach-pt"], "--set", "teacher.std=[0.2,0.25,0.3]")

READERS = ("verify", "open", "train")
"""Entrances that read every byte of a set."""
MADE = frozenset({"out", "out.png", "out.safetensors"})
"""Outputs that an entrance may leave after a refusal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A way to make a hostile file, the commands that read the file, and the expected text of the refusal.

    ``make`` changes a folder of good files. Then each of the ``entrances`` must print ``said``. If ``said`` contains
    bars (``|``), one of the texts between the bars is enough.
    """

    name: str
    make: Callable[[Path], None]
    entrances: Sequence[str]
    said: str


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, length and time of all files and folders in a folder, except outputs (``MADE``).

    A refusal must not change them.
    """
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            if path.relative_to(folder).parts[0] not in MADE:
                status = path.lstat()
                length = 0 if path.is_dir() and not path.is_symlink() else status.st_size
                stamp = 0 if path.is_dir() and not path.is_symlink() else status.st_mtime_ns
                found[str(path.relative_to(folder))] = (status.st_mode, length, stamp)
    return found
