"""Show the results of a table as Markdown, as a self-contained HTML page, and as text for the terminal."""

import dataclasses
import itertools
import statistics
from collections.abc import Iterable
from html import escape as html_escape

import jinja2

from distill.tables.results import RowResult
from distill.tables.schema import Table
from distill.training.cost_estimate import format_duration
from distill.training.run_identity import DIGESTS
from manifests.support.counts import counted

HEADINGS = ("", "paper", "ours", "difference", "samples", "time", "set", "teacher", "result")
SHORT = 8
LEGEND = "Top-1 in percent at the last step; ± is the deviation over seeds. Times are of training only."
LABELS = DIGESTS | {"config_sha256": "config and order of samples", "sha256": "weight file of the result"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """The content of a page with the results of a table."""

    table: Table
    rows: list[RowResult]
    command: str  # the ``distill reproduce`` command of all rows
    facts: list[tuple[str, str]]  # labels and texts
    commands: list[str]  # commands of the jobs that are done

    def groups(self, *, runnable: bool = True) -> list[tuple[str, list[RowResult]]]:
        """Return name and rows of each group in which a row can run. If not ``runnable``, return the other groups."""
        groups = [(name, list(rows)) for name, rows in itertools.groupby(self.rows, key=lambda row: row.group)]
        return [(name, rows) for name, rows in groups if all(row.missing for row in rows) != runnable]

    def left_out(self) -> list[str]:
        """For each combination of missing options, return a sentence with the names of the groups that cannot run."""
        found: dict[str, list[str]] = {}
        for name, rows in self.groups(runnable=False):
            found.setdefault(rows[0].missing, []).append(name)
        return [f"Left out because {missing} is missing: {'; '.join(groups)}." for missing, groups in found.items()]


def render(page: Page, template: str) -> str:
    """Render the page with a template: ``table.md.j2`` or ``table.html.j2``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distill", "tables"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"escape_markdown": _escape_markdown, "one_line": _one_line}
    shown = {"headings": HEADINGS, "legend": LEGEND, "cells": cells, "labels": LABELS}
    return environment.get_template(template).render(page=page, **shown).rstrip() + "\n"


def cells(row: RowResult) -> list[str]:
    """Return a text for each column of ``HEADINGS``. The column ``ours`` also says why results are missing."""
    mean = statistics.fmean(row.top1) if row.top1 else None
    ours = "" if mean is None else f"{mean:.2f}"
    ours += f" ± {statistics.stdev(row.top1):.2f}" if len(row.top1) > 1 else ""
    digests = [row.digests.get(key, "") for key in ("set_id", "teacher_sha256", "sha256")]
    return [
        row.name,
        "" if row.paper is None else f"{row.paper:.2f}",
        "; ".join(part for part in (ours, row.state) if part),
        "" if mean is None or row.paper is None else f"{mean - row.paper:+.2f}",
        "" if row.samples is None else f"{row.samples:,}",
        "" if row.seconds is None else format_duration(row.seconds),
        *(", ".join(each[:SHORT] for each in digest.split(", ")) for digest in digests),
    ]


def text(rows: Iterable[RowResult]) -> list[str]:
    """Return a line of text for each row, for the terminal."""
    found = []
    for row in rows:
        _, paper, ours, difference, _, time, *_ = cells(row)
        parts = [f"paper {paper}"] if paper else []
        parts += [f"ours {ours}" if row.top1 else row.state]
        parts += [f"difference {difference}"] if difference else []
        parts += [f"{counted(row.samples, 'sample', ',')} in {time}"] if row.samples else []
        found.append(f"{row.group}, {row.name}: {', '.join(parts)}")
    return found


def _escape_markdown(value: str) -> str:
    line = html_escape(_one_line(value), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|~#!" else c for c in line)


def _one_line(value: str) -> str:
    return "".join(c for c in " ".join(value.split()) if c.isprintable())
