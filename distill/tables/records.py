"""What the folder of a table keeps of its own: how it was begun, and of each job what it was made from and its end.

``table.json`` makes a folder a table's. ``jobs/NAME.json`` is written when a job begins, and when it ends.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.tables import redaction
from distill.tables.jobs import DIGEST_OF, Job, without_seed
from distill.tables.options import Wish
from manifests.diff import differences
from manifests.errors import PatchSetError
from manifests.format.canonical_json import parse_json
from manifests.support.files import read_regular_file, write_atomically
from manifests.support.system_files import entries

RECORDS = "jobs"
MARKER = "table.json"
FORMAT = "reproduced-table/1"
MAX_BYTES = 1 << 20


def settings_of(wish: Wish) -> dict[str, Any]:
    """What all rows of a table have in common."""
    return {
        "format": FORMAT,
        "scale": wish.scale,
        "teacher_scale": wish.teacher_scale,
        "variant": wish.variant,
        "settings": dict(wish.settings),
        "teacher_settings": dict(wish.teacher_settings),
    }


def require_own(out: Path, wish: Wish, jobs: Iterable[Job]) -> None:
    """Make sure that ``out`` is free for a table, or has this one, begun in the same way from the same files.

    Raises:
        DistillError: it is something else's, or of other settings, configs or files.
    """
    if out.exists() and not out.is_dir():
        raise DistillError(f"{out}: is no folder; choose another --out")
    if not out.exists() or not entries(out):
        return
    held = _read(out / MARKER)
    if held is None:
        raise DistillError(f"{out}: is not empty, and no table was begun there; choose another --out")
    _require_same(out, "the table", held, settings_of(wish))
    for job in jobs:
        record = read_record(out, job.name)
        if record is not None and _begun(out, job):
            _require_same(out, job.name, record["made_from"], dict(job.identity))
        if job.run is not None:
            for name in seeds_of(out, job.run):
                _require_same_but_seed(out, name, job)
    _require_same_inputs(out, wish)


def seeds_of(out: Path, run: str) -> list[str]:
    """The jobs of a run that were begun, by seed."""
    paths = (out / RECORDS / "runs" / run).glob("seed*.json")
    numbers = sorted(int(path.stem[4:]) for path in paths if path.stem[4:].isdigit())
    return [f"runs/{run}/seed{number}" for number in numbers]


def _require_same_but_seed(out: Path, name: str, job: Job) -> None:
    """Hold what the run ``name`` was made from against a ``job`` of the same run, with which it is to have a mean."""
    record = read_record(out, name)
    if record is not None and (out / name).exists():
        held, wanted = without_seed(record["made_from"], name), without_seed(job.identity, job.name)
        _require_same(out, f"{name}, which {job.name} is to have a mean with,", held, wanted)


def _require_same_inputs(out: Path, wish: Wish) -> None:
    """Hold the inputs against those of every row, also of rows and seeds that are not asked for now."""
    now = {f"{DIGEST_OF}{redaction.text(str(path), wish)}": digest for path, digest in wish.digests.items()}
    for path in sorted((out / RECORDS).rglob("*.json")):
        name = path.relative_to(out / RECORDS).with_suffix("").as_posix()
        record = read_record(out, name)
        if record is not None and (out / name).exists():
            held = {key: record["made_from"][key] for key in sorted(now.keys() & record["made_from"].keys())}
            _require_same(out, name, held, {key: now[key] for key in held})


def _begun(out: Path, job: Job) -> bool:
    return (out / job.name).exists() or (out / job.result).exists()


def _require_same(out: Path, what: str, held: dict[str, Any], wanted: dict[str, Any]) -> None:
    wanted = _plain(wanted)
    found = [f"{path} was {old}, is now {new}" for path, old, new in differences(held, wanted) if path != "command"]
    found += _different_words(held.get("command"), wanted.get("command"))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise DistillError(f"{out}: {what} was begun otherwise: {found[0][:400]}{more}; choose another --out")


def _different_words(held: Any, wanted: Any) -> list[str]:
    """The words in which two commands differ, as a sentence; none where they do not."""
    if held == wanted:
        return []
    before, after = str(held).split(), str(wanted).split()
    old, new = ([word for word in a if word not in b] for a, b in ((before, after), (after, before)))
    return [f"command had {' '.join(old) or 'less'}, has now {' '.join(new) or 'less'}"]


def _plain(value: Any) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(value))


def write_marker(out: Path, wish: Wish) -> None:
    """Make ``out`` this table's."""
    write_atomically(out / MARKER, (json.dumps(settings_of(wish), indent=1) + "\n").encode())


def write_record(out: Path, job: Job, *, done: bool = False, wrong: str | None = None) -> None:
    """Say from what a job is made and, when it has ended, whether it is ``done`` or what went ``wrong``."""
    path = _path(out, job.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"made_from": dict(job.identity), "done": done, "failed": wrong}
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def read_record(out: Path, name: str) -> dict[str, Any] | None:
    """A job's record, or None where it was never begun.

    Raises:
        DistillError: it is damaged.
    """
    value = _read(_path(out, name))
    if value is not None and not (isinstance(value.get("made_from"), dict) and value.keys() >= {"done", "failed"}):
        raise DistillError(f"{_path(out, name)}: damaged; delete it and {out / name}")
    return value


def _path(out: Path, name: str) -> Path:
    return out / RECORDS / f"{name}.json"


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = parse_json(read_regular_file(path, MAX_BYTES), str(path))
    except (OSError, PatchSetError):
        value = None
    if not isinstance(value, dict):
        raise DistillError(f"{path}: damaged; delete it, or choose another --out")
    return value


def is_done(out: Path, job: Job) -> bool:
    """Whether a job has its results, made from what it is made from now."""
    if not all((out / name).is_file() for name in (job.result, *job.also)):
        return False
    record = read_record(out, job.name)
    return record is not None and bool(record["done"]) and record["made_from"] == _plain(job.identity)
