"""Read and write the state of a table's folder.

``table.json`` marks a folder as the folder of a table and contains the settings of all rows. ``jobs/NAME.json``
contains the outcome and the identity of a job: command, config and digests of inputs. The runner writes this file
when the job starts and when the job ends.
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
    names = ("scale", "teacher_scale", "variant", "settings", "teacher_settings")
    return {"format": FORMAT} | {name: getattr(options, name) for name in names}


def require_same_table(out: Path, options: TableOptions, jobs: Iterable[Job]) -> None:
    """Check that ``out`` is empty, or contains this table with the same settings, configs and input files.

    The input files must have the digests in the records of all jobs, even of rows and seeds that are not selected.
    """
    if out.exists() and not out.is_dir():
        raise DistillError(f"{out}: is not a folder; choose another --out")
    if not out.exists() or not entries(out):
        return
    recorded = _read(out / TABLE_NAME)
    if recorded is None:
        raise DistillError(f"{out}: is not empty and has no {TABLE_NAME}; choose another --out")
    _require_same(out, "the table", recorded, json.loads(json.dumps(_common_settings(options))))
    for job in jobs:
        if (identity := _recorded_identity(out, job.name, *job.results)) is not None:
            _require_same(out, job.name, identity, job.identity)
        for name in [] if job.run is None else seeds_of(out, job.run):
            if (identity := _recorded_identity(out, name)) is not None:
                what = f"{name}, averaged with {job.name},"
                _require_same(out, what, without_seed(identity, name), without_seed(job.identity, job.name))
    now = {f"{DIGEST_OF}{options.redact_text(str(path))}": digest for path, digest in options.digests.items()}
    for path in sorted((out / RECORDS).rglob("*.json")):
        name = path.relative_to(out / RECORDS).with_suffix("").as_posix()
        inputs = {key: value for key, value in (_recorded_identity(out, name) or {}).items() if key in now}
        _require_same(out, name, inputs, {key: now[key] for key in inputs})


def _recorded_identity(out: Path, name: str, *results: str) -> dict[str, Any] | None:
    """Return the recorded identity of a job; None without a record, or if no file of the job is in ``out``."""
    record = read_record(out, name)
    if record is None or not any((out / path).exists() for path in (name, *results)):
        return None
    return dict(record["made_from"])


def _require_same(out: Path, what: str, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    changes = (change for change in differences(dict(recorded), dict(wanted)) if change[0] != "command")
    found = [f"{path} was {old}, is now {new}" for path, old, new in changes]
    before, after = (str(each.get("command")).split() for each in (recorded, wanted))
    if before != after:
        old, new = ([word for word in a if word not in b] for a, b in ((before, after), (after, before)))
        parts = [f"only the {age} command has {' '.join(each)}" for age, each in (("old", old), ("new", new)) if each]
        found.append(", ".join(parts) or "the words of the command are in another order")
    if found:
        first = found[0][:400] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
        raise DistillError(f"{out}: {what} was started with other values: {first}; choose another --out")


def seeds_of(out: Path, run: str) -> list[str]:
    """Return the names of the started jobs of a run, in the order of their seeds."""
    paths = (out / RECORDS / "runs" / run).glob("seed*.json")
    numbers = sorted(int(path.stem[4:]) for path in paths if path.stem[4:].isdigit())
    return [f"runs/{run}/seed{number}" for number in numbers]


def write_table_file(out: Path, options: TableOptions) -> None:
    """Write ``table.json``, which marks ``out`` as the folder of this table."""
    _write(out / TABLE_NAME, _common_settings(options))


def write_record(out: Path, job: Job, *, done: bool = False, error: str | None = None) -> None:
    """Write the record of a job that starts, is ``done``, or has failed with an ``error``."""
    record = {"made_from": dict(job.identity), "done": done, "failed": error}
    _write(out / RECORDS / f"{job.name}.json", record)


def read_record(out: Path, name: str) -> dict[str, Any] | None:
    """Return the record of a job; None if the job was never started."""
    return _read(out / RECORDS / f"{name}.json", "made_from", "done", "failed")


def is_done(out: Path, job: Job) -> bool:
    """Return whether a job is done: all results exist, and the record has the job's identity and is marked done."""
    if not all((out / path).is_file() for path in job.results):
        return False
    record = read_record(out, job.name)
    return record is not None and bool(record["done"]) and record["made_from"] == job.identity


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def _read(path: Path, *keys: str) -> dict[str, Any] | None:
    """Return the object in a JSON file, which must have these ``keys``; None if the file does not exist."""
    if not path.exists():
        return None
    try:
        value = parse_json(read_regular_file(path, MAX_BYTES), str(path))
    except (OSError, PatchSetError):
        value = None
    if not (isinstance(value, dict) and value.keys() >= set(keys) and isinstance(value.get("made_from", {}), dict)):
        job = "delete the file and the results of this job, or " if keys else ""
        raise DistillError(f"{path}: is damaged; {job}choose another --out")
    return value
