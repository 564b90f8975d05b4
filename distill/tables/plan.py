"""What is to be run of a table: the wish checked, the rows chosen, and the jobs that make them."""

import dataclasses
import difflib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image

from distill.config.schema import Config
from distill.data.labelled import count_images
from distill.errors import DistillError
from distill.tables.digests import pin
from distill.tables.jobs import EVERY, Job, jobs_of, make_jobs, missing
from distill.tables.options import Wish
from distill.tables.schema import PHOTO, Row, Table
from distill.weights.files import load_weights
from distill.weights.load import require_network
from manifests.support.counts import counted

OPTIONS = {
    "train.seed": "say --seeds, which gives each run its own",
    "teacher.weights": "say --teacher NETWORK=FILE",
    "eval.data": "say --input, whose test images judge every row",
}
"""Keys that are not for ``--set``, because an option of ``distill reproduce`` sets them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A table, what was wished of it, all ``jobs`` this allows, and the ``chosen`` ones, of rows that ``only`` names.

    ``skipped`` says how many rows lack which options.
    """

    table: Table
    wish: Wish
    jobs: dict[str, Job]
    chosen: dict[str, Job]
    skipped: dict[str, int]
    only: tuple[str, ...] = ()


def make_plan(table: Table, wish: Wish, only: tuple[str, ...]) -> Plan:
    """The jobs of the rows whose run or network matches one of the patterns ``only``, or of all rows.

    Raises:
        DistillError: something was named that is not there, a config is wrong, or nothing is left to run.
    """
    _check(table, wish)
    wish = dataclasses.replace(wish, digests={path: pin(name, path) for name, path in wish.given()})
    rows = [row for row in table.rows if not only or any(fnmatch(row.of, pattern) for pattern in only)]
    if not rows:
        names = ", ".join(sorted({row.of for row in table.rows}))
        raise DistillError(f"--only {' '.join(only)}: matches no row; rows are of {names}")
    lacks = {row.of: missing(table, wish, row.of) for row in rows}
    needed = {name for row in rows if not lacks[row.of] for name in table.needs(row.of)}
    _require_readable({name: wish.inputs[name] for name in sorted(needed)}, table.inputs())
    jobs = make_jobs(table, wish)
    able = [name for row in rows if not lacks[row.of] for name in jobs_of(table, wish, row)]
    if not able and not any(lacks.values()):
        raise DistillError("nothing to run: what the rows show is given with --teacher")
    if not able:
        inputs = ", ".join(f"{name} ({what})" for name, what in sorted(table.inputs().items()))
        raise DistillError(f"no row can be run: give --input NAME=PATH for {inputs}")
    skipped = Counter(" ".join(lacks[row.of]) for row in rows if lacks[row.of])
    chosen = _with_needs(jobs, able)
    _require_teachers(table, wish, rows, chosen)
    return Plan(table=table, wish=wish, jobs=jobs, chosen=chosen, skipped=dict(skipped), only=only)


def _check(table: Table, wish: Wish) -> None:
    """Make sure that a table has everything ``wish`` names.

    Raises:
        DistillError: it has no such input or network, or a file is not there.
    """
    for option, settings in (("--set", wish.settings), ("--teacher-set", wish.teacher_settings)):
        for key in settings:
            if key in OPTIONS:
                raise DistillError(f"{option} {key}: {OPTIONS[key]}")
    evaluated = sorted(name for name, run in table.runs.items() if run.evaluations)
    if evaluated and EVERY in wish.settings:
        raise DistillError(f"--set {EVERY}: the table says how often {evaluated[0]} is evaluated; leave it out")
    known = table.inputs()
    for option, given, names in (("--input", wish.inputs, known), ("--teacher", wish.teachers, table.networks)):
        for name, path in given.items():
            if name not in names:
                raise DistillError(f"{option} {name}: the table has {_nearest(name, names)}")
            if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
                raise DistillError(f"{option} {name}={path}: no such file or folder")


def _require_readable(inputs: Mapping[str, Path], kinds: Mapping[str, str]) -> None:
    """Make sure, from names and headers alone, that inputs are of the kind the table wants.

    Raises:
        DistillError: one is not, or cannot be read.
    """
    for name, path in inputs.items():
        try:
            if kinds[name] != PHOTO:
                count_images(path)
            else:
                Image.open(path).close()
        except DistillError as error:
            raise DistillError(f"--input {name}: {error}; expected {kinds[name]}") from error
        except (OSError, Image.DecompressionBombError) as error:
            raise DistillError(f"--input {name}={path}: cannot be read, expected {kinds[name]}: {error}") from error


def _require_teachers(table: Table, wish: Wish, rows: Iterable[Row], chosen: Mapping[str, Job]) -> None:
    """Make sure, from names and shapes alone, that given weight files are of the networks that are to teach.

    Raises:
        DistillError: one is of another network, or cannot be read.
    """
    wanted = {
        (table.runs[row.of].teacher, config.teacher.arch, config.teacher.num_classes)
        for row in rows
        if row.of in table.runs and table.runs[row.of].teacher in wish.teachers
        for name in jobs_of(table, wish, row)
        if name in chosen and isinstance(config := chosen[name].config, Config)
    }
    for name, arch, num_classes in sorted(wanted):
        try:
            weights = load_weights(wish.teachers[name])
            if weights.arch not in (None, arch):
                raise DistillError(f"{weights.path}: holds a {weights.arch}")
            require_network(weights, arch=arch, num_classes=num_classes)
        except DistillError as error:
            raise DistillError(
                f"--teacher {name}: {error}; expected a {arch} of {counted(num_classes, 'class')}, as the "
                "table's configs say"
            ) from error


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"none of that name; did you mean {near[0]!r}?" if near else f"{', '.join(sorted(names))}"


def _with_needs(jobs: Mapping[str, Job], names: Iterable[str]) -> dict[str, Job]:
    """The named jobs and all that they need, in the order of ``jobs``."""
    wanted: set[str] = set()
    waiting = [name for name in names if name in jobs]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += jobs[name].needs
    return {name: job for name, job in jobs.items() if name in wanted}
