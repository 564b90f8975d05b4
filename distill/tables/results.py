"""Compute the results of a table's rows: the published figure, ours, the difference, and digests to cite."""

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path

from distill.errors import DistillError
from distill.report.collect import RunRecord, read_run
from distill.report.compare import why_no_mean
from distill.tables.jobs import jobs_of, missing_options
from distill.tables.options import TableOptions
from distill.tables.records import read_record, seeds_of
from distill.tables.schema import Row, Table
from distill.training.run_dir import SUMMARY_NAME
from distill.training.run_identity import DIGESTS
from manifests.support.counts import counted

SHOWN_DIGESTS = (*DIGESTS, "config_sha256", "sha256")  # keys on a page; the last is the digest of final weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowResult:
    """A row of a table with its results."""

    group: str
    name: str
    paper: float | None  # published top-1 in percent
    top1: tuple[float, ...] = ()  # in percent, of each seed that is done
    samples: int | None = None  # mean over the seeds
    seconds: float | None = None  # of training, mean over the seeds
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of inputs and results, by summary key
    state: str = ""  # why results are missing
    missing: str = ""  # options that the user must add before the row can run


def done_commands(table: Table, out: Path) -> list[str]:
    """Return the commands of all jobs that are done, without local paths. A job follows the jobs that it needs."""
    names = [f"images/{name}" for name in table.images]
    names += [f"sets/{name}" for name in (*table.sets, *table.packs)]
    names += [f"networks/{name}" for name in table.networks]
    names += [name for run in table.runs for name in seeds_of(out, run)]
    records = (read_record(out, name) for name in names)
    return [str(r["made_from"].get("command")) for r in records if r is not None and r["done"] and not r["failed"]]


def _read_job(out: Path, name: str) -> RunRecord | str | None:
    """Return the run of a finished job, the error of a failed job as text, or None for any other job."""
    try:
        record = read_record(out, name)
        if record is None:
            return None
        if (out / name / SUMMARY_NAME).is_file():
            return read_run(out / name)
        return f"failed: {record['failed']}" if record["failed"] else None
    except DistillError as error:
        found = str(error).replace(f"{out}/", "").split("; ")[0]  # without advice for ``distill report``
        return f"damaged: {found}; delete the folder {name} and run the command again"


def row_result(table: Table, options: TableOptions, row: Row, out: Path) -> RowResult:
    """Return the result of a row, computed from all runs in the table's folder ``out``."""
    result = RowResult(group=row.group, name=row.name, paper=row.paper)
    if row.of in options.teachers:
        return _given_teacher(result, table, row, out)
    started = [f"networks/{row.of}"] if row.of in table.networks else seeds_of(out, row.of)
    jobs = [_read_job(out, name) for name in dict.fromkeys([*started, *jobs_of(table, options, row)])]
    runs = [job for job in jobs if isinstance(job, RunRecord)]
    states = [job for job in jobs if isinstance(job, str)][:1]
    if not runs:
        missing = "" if states else " ".join(missing_options(table, options, row.of))
        state = states[0] if states else f"needs {missing}" if missing else "not run"
        return dataclasses.replace(result, state=state, missing=missing)
    if not states and len(runs) < len(jobs):
        states = [f"{len(runs)} of {counted(len(jobs), 'seed')}"]
    return _with_figures(result, runs, row.after, states)


def _with_figures(result: RowResult, runs: list[RunRecord], after: float, states: list[str]) -> RowResult:
    """Return ``result`` with digests of ``runs``, and the top-1 of each run at the fraction ``after`` (1 is the end).

    The state of the result contains ``states`` and, if the runs have no mean, the reason.
    """
    digests: dict[str, str] = {}
    for key in SHOWN_DIGESTS if after == 1 else SHOWN_DIGESTS[:-1]:
        values = [value for run in runs if (value := run.figure(key))]
        digests |= {key: ", ".join(dict.fromkeys(values))} if values else {}
    points = [(run, point) for run in runs if (point := _point(run, after)) is not None]
    if lacking := len(runs) - len(points):
        states = [*states, f"{counted(lacking, 'run')} not evaluated at this point"]
    reason = why_no_mean([run for run, _ in points])
    if len({seen for _, (seen, _) in points}) > 1:
        reason = reason or "the seeds were evaluated after different numbers of samples"
    if reason:
        points, states = [], [*states, f"no mean: {reason}"]
    if points:
        rates = [(run.figure("seconds") or 0) / max(run.figure("samples_seen") or 0, 1) for run, _ in points]
        samples = [seen for _, (seen, _) in points]
        seconds = statistics.fmean(rate * seen for rate, seen in zip(rates, samples, strict=True))
        states = [*states, *(_set_means([run for run, _ in points]) if after == 1 else [])]
        top1, mean = tuple(top1 for _, (_, top1) in points), round(statistics.fmean(samples))
        result = dataclasses.replace(result, top1=top1, samples=mean, seconds=seconds)
    return dataclasses.replace(result, digests=digests, state="; ".join(states))


def _set_means(runs: list[RunRecord]) -> list[str]:
    """Return name and mean top-1 of each evaluation set with a name that all runs share."""
    found = []
    for name in runs[0].evaluations:
        values = [value for run in runs if (value := run.set_top1(name)) is not None]
        if len(values) == len(runs):
            found.append(f"{name} {statistics.fmean(values):.2f}")
    return found


def _point(run: RunRecord, after: float) -> tuple[float, float] | None:
    """Return samples seen and top-1 of the evaluation nearest to the fraction ``after`` of a run; 1 is the end."""
    whole = run.figure("samples_seen") or 0
    if after == 1:
        top1 = run.figure("top1")
        return None if top1 is None else (whole, top1)
    return min(run.series("top1"), key=lambda point: abs(point[0] - after * whole), default=None)


def _given_teacher(result: RowResult, table: Table, row: Row, out: Path) -> RowResult:
    """Return the result of a teacher given as a weight file. The top-1 is from the summary of a student's run."""
    for name in (name for key, run in table.runs.items() if run.teacher == row.of for name in seeds_of(out, key)):
        run = _read_job(out, name)
        if isinstance(run, RunRecord) and (top1 := run.figure("teacher_top1")) is not None:
            known = {"eval_sha256": run.figure("eval_sha256"), "sha256": run.figure("teacher_sha256")}
            return dataclasses.replace(result, top1=(top1,), digests={k: v for k, v in known.items() if v})
    return dataclasses.replace(result, state="weight file given; the first run of a student will evaluate it")
