"""The plan of a table: options checked, rows selected, and the jobs that they need."""

import dataclasses
import difflib
import os
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch

from PIL import Image

from distill.data.labelled import count_images
from distill.errors import DistillError
from distill.tables.digests import input_digest
from distill.tables.jobs import EVERY, Job, jobs_of, make_jobs, missing_options, with_needs
from distill.tables.options import TableOptions
from distill.tables.schema import PHOTO, Table

NOT_FOR_SET = {
    "train.seed": "use --seeds, which gives each run its own",
    "teacher.weights": "use --teacher NETWORK=FILE",
    "eval.data": "use --input, whose test images every row is evaluated on",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All ``jobs`` that the options allow, and those ``chosen`` for the rows that the patterns ``only`` select.

    ``skipped`` counts the rows that cannot be run, by the options they lack.
    """

    table: Table
    options: TableOptions
    jobs: dict[str, Job]
    chosen: dict[str, Job]
    skipped: dict[str, int]
    only: tuple[str, ...] = ()


def make_plan(table: Table, options: TableOptions, only: tuple[str, ...]) -> Plan:
    """Plan the rows whose run or network matches one of the patterns ``only``, or all rows."""
    _check_options(table, options)
    digests = {path: input_digest(name, path) for name, path in options.given_paths().items()}
    options = dataclasses.replace(options, digests=digests)
    rows = [row for row in table.rows if not only or any(fnmatch(row.of, pattern) for pattern in only)]
    if not rows:
        names = ", ".join(sorted({row.of for row in table.rows}))
        raise DistillError(f"--only {' '.join(only)}: matches no row; rows are of {names}")
    missing = {row.of: " ".join(missing_options(table, options, row.of)) for row in rows}
    _require_readable_inputs(table, options, [of for of, lacking in missing.items() if not lacking])
    jobs = make_jobs(table, options)
    shown = [name for row in rows if not missing[row.of] for name in jobs_of(table, options, row)]
    if not shown and not any(missing.values()):
        raise DistillError("nothing to run: what the rows show is given with --teacher")
    if not shown:
        inputs = ", ".join(f"{name} ({kind})" for name, kind in sorted(table.inputs().items()))
        raise DistillError(f"no row can be run: give --input NAME=PATH for {inputs}")
    chosen = with_needs(jobs, shown)
    skipped = Counter(missing[row.of] for row in rows if missing[row.of])
    return Plan(table=table, options=options, jobs=jobs, chosen=chosen, skipped=dict(skipped), only=only)


def _check_options(table: Table, options: TableOptions) -> None:
    """Check that the table has every input and network that the options name, and that the files exist."""
    for option, settings in (("--set", options.settings), ("--teacher-set", options.teacher_settings)):
        if key := next((key for key in settings if key in NOT_FOR_SET), None):
            raise DistillError(f"{option} {key}: {NOT_FOR_SET[key]}")
    evaluated = sorted(name for name, run in table.runs.items() if run.evaluations)
    if evaluated and EVERY in options.settings:
        raise DistillError(f"--set {EVERY}: the table says how often {evaluated[0]} is evaluated; leave it out")
    named = (("--input", options.inputs, table.inputs()), ("--teacher", options.teachers, table.networks))
    for option, given, known in named:
        for name, path in given.items():
            if name not in known:
                near = difflib.get_close_matches(name, list(known), n=1)
                hint = f"none of that name; did you mean {near[0]!r}?" if near else ", ".join(sorted(known))
                raise DistillError(f"{option} {name}: the table has {hint}")
            if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names that are too long
                raise DistillError(f"{option} {name}={path}: no such file or folder")


def _require_readable_inputs(table: Table, options: TableOptions, names: Iterable[str]) -> None:
    """Check, from file names and headers only, that the inputs of networks and runs are of the kind they need."""
    for name in sorted({needed for each in names for needed in table.inputs_of(each)}):
        path, kind = options.inputs[name], table.inputs()[name]
        try:
            if kind == PHOTO:
                Image.open(path).close()
            else:
                count_images(path)
        except DistillError as error:
            raise DistillError(f"--input {name}: {error}; expected {kind}") from error
        except (OSError, Image.DecompressionBombError) as error:
            raise DistillError(f"--input {name}={path}: cannot be read, expected {kind}: {error}") from error
