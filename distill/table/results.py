"""What the jobs of a table left, as lines: the publication's figure, ours, their difference, and what to cite."""

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path

from distill.report.collect import RunRecord, read_run
from distill.table.jobs import Job, Wish, jobs_of, missing
from distill.table.runner import is_done
from distill.table.schema import Row, Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A row with its results: ``top1`` in percent, one a seed that ended, and what is not there yet in ``state``.

    ``samples`` and ``seconds`` are the mean run's; ``digests`` name what it was made from and what came out.
    """

    group: str
    name: str
    paper: float | None
    top1: tuple[float, ...] = ()
    samples: int | None = None
    seconds: float | None = None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    state: str = ""

    @property
    def mean(self) -> float | None:
        """Of ``top1``."""
        return statistics.fmean(self.top1) if self.top1 else None

    @property
    def deviation(self) -> float | None:
        """Of the sample ``top1`` (n - 1); None for one."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the publication's."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper


DIGESTS = ("set_id", "data_sha256", "teacher_sha256", "config_sha256", "sha256")


def collect(table: Table, wish: Wish, jobs: Mapping[str, Job], failed: Mapping[str, str], out: Path) -> list[Line]:
    """A line for each row of ``table``; ``failed`` says what went wrong, by job.

    Raises:
        DistillError: a run directory in ``out`` is damaged.
    """
    records = {
        name: read_run(out / name) for name, job in jobs.items() if job.config is not None and is_done(out, job)
    }
    return [_line(table, wish, row, records, failed) for row in table.rows]


def _line(table: Table, wish: Wish, row: Row, records: Mapping[str, RunRecord], failed: Mapping[str, str]) -> Line:
    line = Line(group=row.group, name=row.name, paper=row.paper)
    if lacks := missing(table, wish, row.of):
        return dataclasses.replace(line, state=f"needs {' '.join(lacks)}")
    if row.of in wish.teachers:
        return _given(line, table, row, records)
    names = jobs_of(table, wish, row)
    held = [records[name] for name in names if name in records]
    wrong = [f"failed: {failed[name]}" for name in names if name in failed]
    if not held:
        return dataclasses.replace(line, state=wrong[0] if wrong else "not run")
    state = wrong[0] if wrong else "" if len(held) == len(names) else f"{len(held)} of {len(names)} seeds"
    seen, seconds = ([record.figure(key) or 0 for record in held] for key in ("samples_seen", "seconds"))
    digests: dict[str, str] = {}
    for key in DIGESTS:
        values = [value for record in held if (value := record.figure(key))]
        digests |= {key: ", ".join(dict.fromkeys(values))} if values else {}
    return dataclasses.replace(
        line,
        top1=tuple(top1 for record in held if (top1 := _top1(record, row.after)) is not None),
        samples=round(statistics.fmean(seen) * row.after),
        seconds=statistics.fmean(seconds) * row.after,
        digests=digests,
        state=state,
    )


def _top1(record: RunRecord, after: float) -> float | None:
    """At the end of a run, or at the evaluation nearest to a part of it."""
    if after == 1:
        return record.figure("top1")
    wanted = after * (record.figure("samples_seen") or 0)
    series = record.series(f"{record.prefix}top1")
    return min(series, key=lambda point: abs(point[0] - wanted))[1] if series else None


def _given(line: Line, table: Table, row: Row, records: Mapping[str, RunRecord]) -> Line:
    """A teacher that the user gave, as measured before the runs that it taught."""
    taught = {f"runs/{name}" for name, run in table.runs.items() if run.teacher == row.of}
    for name, record in records.items():
        if name.rpartition("/")[0] in taught and (top1 := record.figure("teacher_top1")) is not None:
            digests = {"sha256": record.figure("teacher_sha256") or ""}
            return dataclasses.replace(line, top1=(top1,), digests=digests)
    return dataclasses.replace(line, state="given; measured with the first run that it teaches")
