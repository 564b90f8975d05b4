"""The state of a table's folder: how it was begun, and of each job its identity and outcome.

``table.json`` marks the folder as a table's. ``jobs/NAME.json`` is written when a job starts and when it ends.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.tables.jobs import DIGEST_OF, Job, without_seed
from distill.tables.options import TableOptions
from manifests.diff import differences
from manifests.errors import PatchSetError
from manifests.format.canonical_json import parse_json
from manifests.support.files import read_regular_file, write_atomically
from manifests.support.system_files import entries

RECORDS = "jobs"
TABLE_NAME = "table.json"
FORMAT = "reproduced-table/1"
MAX_BYTES = 1 << 20


def _common_settings(options: TableOptions) -> dict[str, Any]:
    """Return what all rows of a table have in common."""
    names = ("scale", "teacher_scale", "variant", "settings", "teacher_settings")
    return {"format": FORMAT} | {name: getattr(options, name) for name in names}


def require_same_table(out: Path, options: TableOptions, jobs: Iterable[Job]) -> None:
    """Check that ``out`` is empty, or holds this table with the same settings, configs and input files.

    Inputs are compared with those of all recorded jobs, also of rows and seeds that were not selected now.
    """
    if out.exists() and not out.is_dir():
        raise DistillError(f"{out}: is not a folder; choose another --out")
    if not out.exists() or not entries(out):
        return
    held = _read(out / TABLE_NAME)
    if held is None:
        raise DistillError(f"{out}: is not empty and holds no table; choose another --out")
    _require_same(out, "the table", held, _common_settings(options))
    for job in jobs:
        if (identity := _held_identity(out, job.name, *job.results)) is not None:
            _require_same(out, job.name, identity, job.identity)
        for name in [] if job.run is None else seeds_of(out, job.run):
            if (identity := _held_identity(out, name)) is not None:
                what = f"{name}, to be averaged with {job.name},"
                _require_same(out, what, without_seed(identity, name), without_seed(job.identity, job.name))
    now = {f"{DIGEST_OF}{options.redact_text(str(path))}": digest for path, digest in options.digests.items()}
    for path in sorted((out / RECORDS).rglob("*.json")):
        name = path.relative_to(out / RECORDS).with_suffix("").as_posix()
        held = {key: value for key, value in (_held_identity(out, name) or {}).items() if key in now}
        _require_same(out, name, held, {key: now[key] for key in held})


def _held_identity(out: Path, name: str, *results: str) -> dict[str, Any] | None:
    """Return the recorded identity of a job that left something in ``out``, else None."""
    record = read_record(out, name)
    if record is None or not any((out / path).exists() for path in (name, *results)):
        return None
    return dict(record["made_from"])


def _require_same(out: Path, what: str, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    found = [
        f"{path} was {old}, is now {new}"
        for path, old, new in differences(dict(held), _as_json(wanted))
        if path != "command"
    ]
    before, after = (str(each.get("command")).split() for each in (held, wanted))
    if before != after:
        old, new = ([word for word in a if word not in b] for a, b in ((before, after), (after, before)))
        found.append(f"command had {' '.join(old) or 'less'}, has now {' '.join(new) or 'less'}")
    if found:
        first = found[0][:400] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
        raise DistillError(f"{out}: {what} was started with other values: {first}; choose another --out")


def seeds_of(out: Path, run: str) -> list[str]:
    """Return the names of the started jobs of a run, in the order of their seeds."""
    paths = (out / RECORDS / "runs" / run).glob("seed*.json")
    numbers = sorted(int(path.stem[4:]) for path in paths if path.stem[4:].isdigit())
    return [f"runs/{run}/seed{number}" for number in numbers]


def write_table_file(out: Path, options: TableOptions) -> None:
    """Write ``table.json``, which makes ``out`` the folder of this table."""
    _write(out / TABLE_NAME, _common_settings(options))


def write_record(out: Path, job: Job, *, done: bool = False, error: str | None = None) -> None:
    """Write the record of a job that starts, or has ended: ``done``, or with an ``error``."""
    _write(_path(out, job.name), {"made_from": dict(job.identity), "done": done, "failed": error})


def read_record(out: Path, name: str) -> dict[str, Any] | None:
    """Return a job's record, or None if it was never started."""
    return _read(_path(out, name), "made_from", "done", "failed")


def is_done(out: Path, job: Job) -> bool:
    """Return whether a job has all its results, from the identity that it has now."""
    if not all((out / path).is_file() for path in job.results):
        return False
    record = read_record(out, job.name)
    return record is not None and bool(record["done"]) and record["made_from"] == _as_json(job.identity)


def _path(out: Path, name: str) -> Path:
    return out / RECORDS / f"{name}.json"


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value as it comes back from a JSON file."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(value)))
    return plain


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def _read(path: Path, *keys: str) -> dict[str, Any] | None:
    """Return the object in a JSON file, which has these ``keys``; None if there is no file."""
    if not path.exists():
        return None
    try:
        value = parse_json(read_regular_file(path, MAX_BYTES), str(path))
    except (OSError, PatchSetError):
        value = None
    if not (isinstance(value, dict) and value.keys() >= set(keys) and isinstance(value.get("made_from", {}), dict)):
        raise DistillError(f"{path}: damaged; delete it and what the job left, or choose another --out")
    return value
