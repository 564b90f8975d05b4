"""Match the labels of image data with a network's classes: by class name if both have class names, else by number."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from distill.data.labelled import LabelledImages
from distill.errors import DistillError
from manifests.foreign.image_data import are_numbers
from manifests.support.counts import counted

_UNNAMED = "class {}"
logger = logging.getLogger(__name__)


def match_classes(data: LabelledImages, num_classes: int, names: Sequence[str], where: Path | str) -> LabelledImages:
    """Return ``data`` with the labels and class names of a network with ``num_classes`` outputs.

    ``names`` are the network's class names, or empty. If data and network have names, classes with equal names match;
    case, spaces, ``-`` and ``_`` do not matter. Otherwise, numbers as names of class folders are the class numbers,
    counted from 0, or from 1 if the largest is ``num_classes``. Other class folders, sorted, are the classes 0, 1 and
    so on, if none is missing. Data without class folders has class numbers. ``where`` is the path for messages.
    """
    present = data.labels.unique().tolist()
    numbers = {label: label for label in present}
    if names and data.names and are_numbers(names) == are_numbers(data.names):
        numbers = _by_name(data, present, names, where)
    elif not data.numbered and are_numbers(data.names):
        numbers = _by_number(data, present, num_classes, where)
    elif not data.numbered and len(data.names) < num_classes:
        found = f"contains {counted(len(data.names), 'class folder')}, but the network has {num_classes} classes"
        action = "add a folder for each class, also without images, or name the folders by their class numbers"
        raise DistillError(f"{where}: {found}; {action}")
    low, high = min(numbers.values()), max(numbers.values())
    if low < 0 or high >= num_classes:
        found = f"the labels are from {low} to {high}, expected 0 to {num_classes - 1}"
        raise DistillError(f"{where}: {found}; use images of the network's classes")
    if len(present) < num_classes:
        logger.info(f"{where}: contains images of {len(present)} of the network's {num_classes} classes")
    lookup = torch.zeros(present[-1] + 1, dtype=torch.int64)
    lookup[present] = torch.tensor([numbers[label] for label in present])
    known = dict(enumerate(names)) or {numbers.get(k, k): name for k, name in enumerate(data.names)}
    own = tuple(known.get(number, _UNNAMED.format(number)) for number in range(num_classes)) if known else ()
    return dataclasses.replace(data, labels=lookup[data.labels], names=own, numbered=True)


def complete_names(data: LabelledImages) -> tuple[str, ...]:
    """Return the class names that ``match_classes`` set, or () if a class has no name or all names are numbers."""
    unnamed = any(name == _UNNAMED.format(number) for number, name in enumerate(data.names))
    return () if unnamed or data.names == tuple(map(str, range(len(data.names)))) else data.names


def _by_name(data: LabelledImages, present: list[int], names: Sequence[str], where: Path | str) -> dict[int, int]:
    """Return for each label in ``present`` the number of the network's class that has the same class name."""
    if data.names == tuple(names):
        return {label: label for label in present}
    of_name: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        of_name.setdefault(plain_name(name), []).append(number)
    own = {label: data.names[label] if label < len(data.names) else str(label) for label in present}
    found = {label: of_name.get(plain_name(name), []) for label, name in own.items()}
    if unknown := [own[label] for label, numbers in found.items() if len(numbers) != 1]:
        what = f"the network has {len(of_name.get(plain_name(unknown[0]), [])) or 'no'} classes named {unknown[0]!r}"
        what += f"; {len(unknown)} of {len(present)} class names in the data do not fit"
        action = f"rename the classes to the network's names ({', '.join(names[:3])}, …) or class numbers"
        raise DistillError(f"{where}: {what}; {action}")
    numbers = {label: matches[0] for label, matches in found.items()}
    if any(label != number for label, number in numbers.items()):
        logger.info(f"{where}: the classes have another order than in the network; they are matched by name")
    return numbers


def _by_number(data: LabelledImages, present: list[int], num_classes: int, where: Path | str) -> dict[int, int]:
    """Return for each label in ``present`` the network's class number, read from the name of the class folder."""
    values = [int(name) for name in data.names]
    smallest, largest = values[0], values[-1]
    if values == list(range(len(values))):
        return {label: label for label in present}
    if largest < num_classes:
        logger.info(f"{where}: the numbers of the class folders have gaps; folder {largest} is class {largest}")
        return {label: values[label] for label in present}
    if smallest >= 1 and largest == num_classes:
        logger.info(f"{where}: the class folders are counted from 1; folder {smallest} is class {smallest - 1}")
        return {label: values[label] - 1 for label in present}
    if len(values) != num_classes:
        found = f"the class folders are numbers from {smallest} to {largest}, expected 0 to {num_classes - 1}"
        raise DistillError(f"{where}: {found}; rename the class folders to the network's class numbers")
    logger.info(f"{where}: the sorted class folders are the classes from 0 on; folder {smallest} is class 0")
    return {label: label for label in present}


def plain_name(name: str) -> str:
    """Return a class name without differences of case, spaces, ``-`` and ``_``."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
