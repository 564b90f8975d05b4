"""Plan a table: check the options, select rows, and list the jobs that the rows need."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image

from distill.data.labelled import count_images
from distill.errors import DistillError
from distill.tables.jobs import Job, jobs_of, make_jobs, missing_options, with_needs
from distill.tables.options import TableOptions
from distill.tables.records import TABLE_NAME
from distill.tables.schema import EVERY, PHOTO, SET_BY, Row, Table
from manifests.format.digest import file_digest
from manifests.support.system_files import is_system_file

MAX_HASHED_BYTES = 1 << 30
"""Maximum size of a folder whose files are hashed; larger folders are compared by names and sizes of files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of a table: all ``jobs`` that are possible with the options, and the ``chosen`` jobs of selected rows.

    ``only`` are the patterns that select ``rows``. ``skipped`` counts rows that cannot run, by their missing options.
    """

    table: Table
    options: TableOptions
    jobs: dict[str, Job]
    chosen: dict[str, Job]
    rows: list[Row]
    skipped: dict[str, int]
    only: tuple[str, ...] = ()


def make_plan(table: Table, options: TableOptions, only: tuple[str, ...]) -> Plan:
    """Plan the rows whose run or network matches one of the patterns ``only``; without patterns, all rows."""
    _check_options(table, options)
    digests = {path: input_digest(path) for path in options.given_paths().values()}
    options = dataclasses.replace(options, digests=digests)
    rows = [row for row in table.rows if not only or any(fnmatch(row.of, pattern) for pattern in only)]
    if not rows:
        names = ", ".join(sorted({row.of for row in table.rows}))
        patterns = " ".join(only)
        raise DistillError(f"--only {patterns}: no row of the table matches; choose from {names}")
    missing = {row.of: " ".join(missing_options(table, options, row.of)) for row in rows}
    _require_readable_inputs(table, options, [of for of, lacking in missing.items() if not lacking])
    jobs = make_jobs(table, options)
    shown = [name for row in rows if not missing[row.of] for name in jobs_of(table, options, row)]
    if not shown and not any(missing.values()):
        raise DistillError("no job to run: --teacher replaces every selected network; select other rows with --only")
    if not shown:
        inputs = ", ".join(f"{name} ({kind})" for name, kind in sorted(table.inputs().items()))
        raise DistillError(f"no row can run; add {next(filter(None, missing.values()))} (inputs: {inputs})")
    chosen = with_needs(jobs, shown)
    skipped = Counter(missing[row.of] for row in rows if missing[row.of])
    return Plan(table=table, options=options, jobs=jobs, chosen=chosen, rows=rows, skipped=dict(skipped), only=only)


def _check_options(table: Table, options: TableOptions) -> None:
    """Check that the table has every input and network that the options name, and that the files exist."""
    evaluated = sorted(name for name, run in table.runs.items() if run.evaluations)
    for option, settings in (("--set", options.settings), ("--teacher-set", options.teacher_settings)):
        if key := next((key for key in settings if key in SET_BY and key != EVERY), None):
            raise DistillError(f"{option} {key}: {SET_BY[key]} sets this key; use {SET_BY[key]}")
    if evaluated and EVERY in options.settings:
        raise DistillError(f"--set {EVERY}: the table sets this key for the run {evaluated[0]}; remove the option")
    named = (("--input", options.inputs, table.inputs()), ("--teacher", options.teachers, table.networks))
    for option, given, known in named:
        for name, path in given.items():
            if name not in known:
                names = ", ".join(sorted(known))
                raise DistillError(f"{option} {name}: the table does not use this name; choose from {names}")
            if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names that are too long
                raise DistillError(f"{option} {name}={path}: this path does not exist; choose another path")


def _require_readable_inputs(table: Table, options: TableOptions, names: Iterable[str]) -> None:
    """Check from file names and headers that each input of the networks and runs ``names`` is of the right kind."""
    for name in sorted({needed for each in names for needed in table.inputs_of(each)}):
        path, kind = options.inputs[name], table.inputs()[name]
        try:
            if kind == PHOTO:
                Image.open(path).close()
            else:
                count_images(path)
        except DistillError as error:
            raise DistillError(f"--input {name} must be {kind}: {error}") from error
        except (OSError, Image.DecompressionBombError) as error:
            raise DistillError(f"--input {name}={path}: cannot be read as {kind}: {error}; choose {kind}") from error


def input_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex. For a folder, add what the SHA-256 covers, such as "… over its files".

    The digest of a folder is the SHA-256 of the lines that ``sha256sum`` prints for the files in the folder, sorted
    by the bytes of their paths. Above ``MAX_HASHED_BYTES`` in total, the lines contain file sizes instead of digests.
    Links to folders are followed. System files and output folders of ``distill reproduce`` are skipped.
    """
    try:
        if not path.is_dir():
            return file_digest(path)
        files = {os.fsencode(file.relative_to(path)): file for file in _files_below(path)}
        hashed = sum(file.stat().st_size for file in files.values()) <= MAX_HASHED_BYTES
        state = hashlib.sha256()
        for relative, file in sorted(files.items()):
            content = file_digest(file) if hashed else str(file.stat().st_size)
            state.update(b"%s  %s\n" % (content.encode(), relative))
    except OSError as error:
        reason = f"{error.filename or path}: cannot be read: {error.strerror or error}"
        raise DistillError(f"{reason}; choose another file or folder") from error
    return f"{state.hexdigest()} over {'its files' if hashed else 'names and sizes of its files'}"


def _files_below(folder: Path) -> list[Path]:
    """Return the regular files in a folder and its subfolders. A folder with a link to itself is read only once."""

    def fail(error: OSError) -> None:
        raise error

    found, seen = [], set()
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(root)  # noqa: PTH116 - of the target of a link
        if (status.st_dev, status.st_ino) in seen or TABLE_NAME in names:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        found += [path for name in names if not is_system_file(name) and (path := Path(root) / name).is_file()]
    return found
