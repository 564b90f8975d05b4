"""Read data sets of torchvision by name from a local folder: ``torchvision:STL10:ROOT``. Nothing is downloaded."""

import difflib
import inspect
import warnings
from pathlib import Path
from typing import Any

import torchvision.datasets

from distill.errors import DistillError
from manifests.foreign.listing import Split
from manifests.support.files import expand_home

PREFIX = "torchvision:"
_SPLITS = {
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
    **dict.fromkeys(("ImageNet", "Imagenette", "CLEVRClassification"), ("train", "val")),
}
"""Names of the training and the evaluation split of data sets that have others than ``train`` and ``test``."""


class TorchvisionSet:
    """The split of a data set of torchvision: pairs of an RGB image and a class number."""

    def __init__(self, path: Path, split: Split) -> None:
        self.where = str(path)
        self._dataset = _open(self.where, split)
        classes = getattr(self._dataset, "wnids", getattr(self._dataset, "classes", ()))  # ImageNet has both
        self.classes = tuple(classes) if all(isinstance(name, str) for name in classes) else ()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        try:
            item = self._dataset[index]
        except Exception as error:
            raise _error(f"{self.where}: image {index}", error) from error
        if not isinstance(item, tuple) or len(item) != 2 or not hasattr(item[0], "convert"):
            found = f"item {index} is {type(item).__name__}, expected a pair of an image and a class number"
            raise DistillError(f"{self.where}: {found}; use a data set for classification")
        return item[0].convert("RGB"), item[1]


def split_name(text: str) -> tuple[str, Path]:
    """Return name and root of a text such as ``torchvision:STL10:ROOT``."""
    name, colon, root = text.removeprefix(PREFIX).partition(":")
    if not colon or not root:
        raise DistillError(f"{text}: expected torchvision:NAME:ROOT; write for example torchvision:STL10:data/stl10")
    try:
        return name, Path(expand_home(root))
    except ValueError as error:
        raise DistillError(f"{text}: {error}") from error


def _open(text: str, split: Split) -> Any:
    name, root = split_name(text)
    known = {each: parameters for each in torchvision.datasets.__all__ if (parameters := _parameters(each))}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "choose a class of torchvision.datasets that has splits"
        raise DistillError(f"{text}: torchvision has no data set {name!r} with a split for training; {hint}")
    if not root.exists():
        raise DistillError(f"{text}: the folder {root} does not exist; give the folder with the data set's files")
    choice: dict[str, Any] = {"split": _SPLITS.get(name, ("train", "test"))[split == "test"]}
    if "split" not in known[name]:
        choice = {"train": split == "train"}
    try:
        with warnings.catch_warnings(action="ignore"):
            return getattr(torchvision.datasets, name)(root, **choice)
    except Exception as error:
        raise _error(text, error) from error


def _parameters(name: str) -> set[str]:
    """Return the names of the arguments of a data set that needs only a root and a split, else an empty set."""
    parameters = inspect.signature(getattr(torchvision.datasets, name).__init__).parameters.values()
    names = {each.name for each in parameters}
    plain = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = {each.name for each in parameters if each.default is each.empty and each.kind not in plain}
    return names if needed <= {"self", "root", "split"} and names & {"split", "train"} else set()


def _error(where: str, error: Exception) -> DistillError:
    """Return an error of one line for an exception of torchvision."""
    if isinstance(error, ModuleNotFoundError):
        missing = error.name or "a package"
        return DistillError(f"{where}: torchvision needs the package {missing}; run pip install {missing}")
    reason = (str(error) or type(error).__name__).splitlines()[0].partition(" You can use download")[0][:300]
    return DistillError(f"{where}: torchvision cannot read it: {reason.rstrip('.')}; give the folder of its files")
