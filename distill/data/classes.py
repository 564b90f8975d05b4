"""Which class of a network each label of some data means: by name where both sides have names, else by number."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from distill.data.labelled import LabelledImages
from distill.errors import DistillError
from manifests.foreign.image_data import are_numbers

_UNNAMED = "class {}"
logger = logging.getLogger(__name__)


def match_classes(data: LabelledImages, num_classes: int, names: Sequence[str], where: Path) -> LabelledImages:
    """Return ``data`` with the labels and class names of a network with ``num_classes`` outputs.

    ``names`` are the network's class names, empty where they are unknown. Names are compared without regard to case,
    spaces, ``-`` and ``_``. Class folders that are numbers are class numbers, counted from 0, or from 1 where the
    largest is ``num_classes``. Other class folders, for a network without names, are numbered in order.
    ``where`` names the data in messages; unusual names or numbers are logged.
    """
    present = data.labels.unique().tolist()
    numbers = dict(zip(present, present, strict=True))
    if _by_name(data, names):
        numbers = _named(data, present, names, where)
    elif not data.numbered and are_numbers(data.names):
        numbers = _numbered(data, present, num_classes, where)
    low, high = min(numbers.values()), max(numbers.values())
    if low < 0 or high >= num_classes:
        raise DistillError(
            f"{where}: labels run from {low} to {high}, expected 0 to {num_classes - 1}; "
            "use data with the network's classes"
        )
    if len(present) < num_classes:
        logger.info(f"{where}: has images of {len(present)} of the network's {num_classes} classes")
    lookup = torch.zeros(present[-1] + 1, dtype=torch.int64)
    lookup[present] = torch.tensor([numbers[label] for label in present])
    held = dict(enumerate(names)) or {numbers.get(k, k): name for k, name in enumerate(data.names)}
    return dataclasses.replace(
        data,
        labels=lookup[data.labels],
        names=tuple(held.get(number, _UNNAMED.format(number)) for number in range(num_classes)) if held else (),
        numbered=True,
    )


def complete_names(data: LabelledImages) -> tuple[str, ...]:
    """Return the class names of matched training data if every class has one, else none.

    Numbers that are all the classes' own are no names.
    """
    unnamed = any(name == _UNNAMED.format(number) for number, name in enumerate(data.names))
    return () if unnamed or data.names == tuple(map(str, range(len(data.names)))) else data.names


def _by_name(data: LabelledImages, names: Sequence[str]) -> bool:
    """Return whether both sides have class names of one kind, words or numbers."""
    return bool(names) and bool(data.names) and are_numbers(names) == are_numbers(data.names)


def _named(data: LabelledImages, present: list[int], names: Sequence[str], where: Path) -> dict[int, int]:
    if data.names == tuple(names):
        return {label: label for label in present}
    of_name: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        of_name.setdefault(_plain(name), []).append(number)
    found = {
        label: of_name.get(_plain(data.names[label]), []) if label < len(data.names) else [] for label in present
    }
    if unknown := [label for label, numbers in found.items() if len(numbers) != 1]:
        listed = ", ".join(data.names[k] if k < len(data.names) else str(k) for k in unknown[:3])
        raise DistillError(
            f"{where}: {len(unknown)} of its {len(present)} classes ({listed}) have no name of the network's "
            f"({', '.join(names[:3])}, …); rename the classes as the network's, or to its class numbers"
        )
    numbers = {label: matches[0] for label, matches in found.items()}
    if any(label != number for label, number in numbers.items()):
        logger.info(f"{where}: its classes are in another order than the network's; they are matched by name")
    return numbers


def _numbered(data: LabelledImages, present: list[int], num_classes: int, where: Path) -> dict[int, int]:
    values = [int(name) for name in data.names]
    if values == list(range(len(values))):
        return {label: label for label in present}
    if max(values) < num_classes:
        logger.info(f"{where}: class folders are numbers with gaps; folder {values[-1]} is class {values[-1]}")
        return {label: values[label] for label in present}
    if min(values) >= 1 and max(values) == num_classes:
        logger.info(f"{where}: class folders are numbers counted from 1; folder {values[0]} is class {values[0] - 1}")
        return {label: values[label] - 1 for label in present}
    if len(values) != num_classes:
        raise DistillError(
            f"{where}: class folders are numbers from {values[0]} to {values[-1]}, expected 0 to {num_classes - 1}; "
            "rename them to the network's class numbers"
        )
    logger.info(f"{where}: class folders are numbers, taken in order; folder {values[0]} is class 0")
    return {label: label for label in present}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
