"""Match the classes of several teachers by their names."""

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distill.data.classes import plain_name
from distill.errors import DistillError
from manifests.support.counts import counted
from manifests.support.files import read_regular_file

MAX_BYTES = 1 << 23  # 80 for each of 100,000 names


def read_class_names(path: Path, num_classes: int) -> tuple[str, ...]:
    """Read a text file with one class name a line, in the order of a network's logits."""
    try:
        names = tuple(line.strip() for line in read_regular_file(path, MAX_BYTES).decode("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the content is not UTF-8 text"
        raise DistillError(
            f"{path}: cannot be read: {reason}; give a text file with one class name a line"
        ) from error
    if len(names) != num_classes:
        found = f"has {counted(len(names), 'line')}, but the teacher has {num_classes} classes"
        raise DistillError(f"{path}: {found}; write one class name a line, in the order of the teacher's logits")
    if "" in names:
        raise DistillError(f"{path}: line {names.index('') + 1} is empty; write a class name on every line")
    _require_different(names, str(path))
    return names


def class_order(names: Sequence[str], wanted: Sequence[str], where: str) -> tuple[int, ...] | None:
    """Return for each name in ``wanted`` its position in ``names``; None if both have the same order.

    Case, spaces, ``-`` and ``_`` do not matter. ``names`` may have more classes. ``where`` is their place in errors.
    """
    _require_different(names, where)
    _require_different(wanted, "the first teacher")
    position = {plain_name(name): number for number, name in enumerate(names)}
    missing = [name for name in wanted if plain_name(name) not in position]
    if missing:
        near = difflib.get_close_matches(plain_name(missing[0]), position, n=3, cutoff=0.5)
        hint = (
            f"the nearest are {', '.join(repr(names[position[each]]) for each in near)}" if near else "none is near"
        )
        found = f"has no class named {missing[0]!r} ({len(missing)} of {len(wanted)} names are missing); {hint}"
        raise DistillError(f"{where}: {found}; correct the names with teacher.classes")
    order = tuple(position[plain_name(name)] for name in wanted)
    return None if order == tuple(range(len(names))) else order


def _require_different(names: Sequence[str], where: str) -> None:
    name, count = Counter(map(plain_name, names)).most_common(1)[0]
    if count > 1:
        raise DistillError(f"{where}: {count} classes are named {name!r}; give each class a name of its own")
