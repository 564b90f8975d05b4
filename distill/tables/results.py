"""What the jobs of a table left, as lines: the publication's figure, ours, their difference, and what to cite."""

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path

from distill.errors import DistillError
from distill.report.collect import RunRecord, read_run
from distill.tables.jobs import jobs_of, missing
from distill.tables.options import Wish
from distill.tables.records import read_record, seeds_of
from distill.tables.schema import Row, Table
from distill.training import provenance
from distill.training.run_dir import SUMMARY_NAME
from manifests.support.counts import counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A row with its results: ``top1`` in percent, one a seed that ended, and what is not there yet in ``state``.

    ``samples`` and ``seconds`` are the mean run's; ``digests`` name what it was made from and what came out.
    ``lacks`` are the options without which it cannot be run.
    """

    group: str
    name: str
    paper: float | None
    top1: tuple[float, ...] = ()
    samples: int | None = None
    seconds: float | None = None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    state: str = ""
    lacks: str = ""

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


DIGESTS = (*provenance.DIGESTS, "config_sha256", "sha256")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A job's run directory, read; or, where it has none that is whole, what went ``wrong``."""

    record: RunRecord | None = None
    wrong: str | None = None


def collect(table: Table, wish: Wish, out: Path) -> list[Line]:
    """A line for each row of ``table``, from all that was ever made in ``out``."""
    return [_line(table, wish, row, out) for row in table.rows]


def done_commands(table: Table, out: Path) -> list[str]:
    """The commands of the jobs that have ended well, with variables for inputs, in the order of what needs what."""
    names = [f"images/{name}" for name in table.images]
    names += [f"sets/{name}" for name in (*table.sets, *table.packs)]
    names += [f"networks/{name}" for name in table.networks]
    names += [name for run in table.runs for name in seeds_of(out, run)]
    commands = []
    for name in names:
        record = read_record(out, name)
        if record is not None and record["failed"] is None and record["done"]:
            commands.append(str(record["made_from"].get("command")))
    return commands


def _ended(out: Path, name: str) -> Ended | None:
    """What there is of a job; None where it was not begun, or goes on yet."""
    try:
        record = read_record(out, name)
        if record is None:
            return None
        if (out / name / SUMMARY_NAME).is_file():
            return Ended(record=read_run(out / name))
        return Ended(wrong=f"failed: {record['failed']}") if record["failed"] else None
    except DistillError as error:
        return Ended(wrong=f"damaged: {str(error).replace(f'{out}/', '')}; delete {name}, and run it again")


def _line(table: Table, wish: Wish, row: Row, out: Path) -> Line:
    line = Line(group=row.group, name=row.name, paper=row.paper)
    if row.of in wish.teachers:
        return _given(line, table, row, out)
    found = {
        name: _ended(out, name) for name in dict.fromkeys([*_begun(out, table, row), *jobs_of(table, wish, row)])
    }
    held = [ended.record for ended in found.values() if ended is not None and ended.record is not None]
    wrong = [ended.wrong for ended in found.values() if ended is not None and ended.wrong is not None]
    if not held:
        lacks = " ".join(missing(table, wish, row.of))
        state = wrong[0] if wrong else f"needs {lacks}" if lacks else "not run"
        return dataclasses.replace(line, state=state, lacks="" if wrong else lacks)
    states = wrong[:1] or ([f"{len(held)} of {counted(len(found), 'seed')}"] if len(held) < len(found) else [])
    return _with_figures(line, held, row.after, states)


def _begun(out: Path, table: Table, row: Row) -> list[str]:
    return [f"networks/{row.of}"] if row.of in table.networks else seeds_of(out, row.of)


def _with_figures(line: Line, held: list[RunRecord], after: float, states: list[str]) -> Line:
    digests: dict[str, str] = {}
    for key in DIGESTS if after == 1 else DIGESTS[:-1]:  # the last one is of the weights at the end
        values = [value for record in held if (value := record.figure(key))]
        digests |= {key: ", ".join(dict.fromkeys(values))} if values else {}
    points = [(record, point) for record in held if (point := _point(record, after)) is not None]
    if not points:
        return dataclasses.replace(line, digests=digests, state="; ".join([*states, "not evaluated then"]))
    if len(points) < len(held):
        states = [*states, f"{len(held) - len(points)} not evaluated then"]
    if reason := _no_mean(points):
        return dataclasses.replace(line, digests=digests, state="; ".join([*states, f"no mean: {reason}"]))
    return dataclasses.replace(
        line,
        top1=tuple(top1 for _, (_, top1) in points),
        samples=round(statistics.fmean(samples for _, (samples, _) in points)),
        seconds=statistics.fmean(_seconds(record, samples) for record, (samples, _) in points),
        digests=digests,
        state="; ".join(states),
    )


def _no_mean(points: list[tuple[RunRecord, tuple[float, float]]]) -> str | None:
    """Why runs with figures have no mean; None where they have one."""
    origins = {record.folder.name: record.origin() for record, _ in points}
    if reason := provenance.no_mean(origins, supervised=points[0][0].supervised):
        return reason
    (first, (samples, _)), *others = points
    other = next((f"{seen:,.0f} in {record.folder.name}" for record, (seen, _) in others if seen != samples), None)
    return None if other is None else f"samples: {samples:,.0f} in {first.folder.name}, {other}"


def _seconds(record: RunRecord, samples: float) -> float:
    """Of training, up to so many samples."""
    return float((record.figure("seconds") or 0) * samples / max(record.figure("samples_seen") or 0, 1))


def _point(record: RunRecord, after: float) -> tuple[float, float] | None:
    """Samples and top-1 at the end of a run, or of its evaluation nearest to a part of it."""
    whole = record.figure("samples_seen") or 0
    if after == 1:
        top1 = record.figure("top1")
        return None if top1 is None else (whole, top1)
    series = record.series(f"{record.prefix}top1")
    return min(series, key=lambda point: abs(point[0] - after * whole)) if series else None


def _given(line: Line, table: Table, row: Row, out: Path) -> Line:
    """A teacher that the user gave, as measured before the runs that it taught."""
    taught = [name for run in table.runs if table.runs[run].teacher == row.of for name in seeds_of(out, run)]
    for name in taught:
        ended = _ended(out, name)
        record = None if ended is None else ended.record
        if record is not None and (top1 := record.figure("teacher_top1")) is not None:
            held = {"eval_sha256": record.figure("eval_sha256"), "sha256": record.figure("teacher_sha256")}
            return dataclasses.replace(line, top1=(top1,), digests={key: text for key, text in held.items() if text})
    return dataclasses.replace(line, state="given; measured with the first run that it teaches")
