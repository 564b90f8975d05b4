"""The results of a table as Markdown, as a self-contained HTML page, and as text for the terminal."""

import dataclasses
import itertools
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
LABELS = {
    **DIGESTS,
    "config_sha256": "config, with the order it gives",
    "sha256": "result's file",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """The content of a page: ``facts`` are labels and texts, ``commands`` what was run, in order.

    ``command`` is the ``distill reproduce`` command that does all of it.
    """

    table: Table
    rows: list[RowResult]
    command: str
    facts: list[tuple[str, str]]
    commands: list[str]

    def groups(self) -> list[tuple[str, list[RowResult]]]:
        """Return the rows by group, in the table's order, without groups of which no row can be run."""
        return [(name, rows) for name, rows in self._all_groups() if not all(row.missing for row in rows)]

    def left_out(self) -> list[str]:
        """Return a sentence for each set of missing options, with the groups that it leaves out."""
        found: dict[str, list[str]] = {}
        for name, rows in self._all_groups():
            if all(row.missing for row in rows):
                found.setdefault(rows[0].missing, []).append(name)
        return [f"Left out because {missing} is missing: {'; '.join(groups)}." for missing, groups in found.items()]

    def _all_groups(self) -> list[tuple[str, list[RowResult]]]:
        return [(name, list(rows)) for name, rows in itertools.groupby(self.rows, key=lambda row: row.group)]


def markdown(page: Page) -> str:
    """Return the page as Markdown."""
    parts = [f"# {_escape(page.table.title)}", _escape(page.table.source)]
    parts += [_escape(page.table.note)] if page.table.note else []
    parts.append(f"    {_one_line(page.command)}")
    rows = [_markdown_row(HEADINGS), _markdown_row(["---"] + ["---:"] * 5 + ["---"] * 3)]
    for group, results in page.groups():
        rows.append(_markdown_row([f"**{_escape(group)}**"] + [""] * (len(HEADINGS) - 1)))
        rows += [_markdown_row(map(_escape, cells(row))) for row in results]
    parts += ["\n".join(rows), LEGEND, *map(_escape, page.left_out())]
    parts.append("\n".join(f"- {label}: {_escape(text)}" for label, text in page.facts))
    commands = [f"    {_one_line(command)}" for command in page.commands]
    parts.append("\n".join(["Commands, in the folder of the table:\n", *commands]))
    digests = {
        f"{row.group}, {row.name}": "; ".join(f"{LABELS[key]} {value}" for key, value in row.digests.items())
        for row in page.rows
        if row.digests
    }
    lines = [_escape(f"- {name}: {values}") for name, values in digests.items()]
    parts += ["SHA-256:\n\n" + "\n".join(lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def html(page: Page) -> str:
    """Return the page as HTML."""
    loader = jinja2.PackageLoader("distill", "tables")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("table.html.j2")
    return template.render(page=page, headings=HEADINGS, legend=LEGEND, cells=cells, labels=LABELS)


def cells(row: RowResult) -> list[str]:
    """Return the texts of a row in the order of ``HEADINGS``; the state stands in the column of our figure."""
    ours = "" if row.mean is None else f"{row.mean:.2f}"
    ours += "" if row.deviation is None else f" ± {row.deviation:.2f}"
    digests = [row.digests.get(key, "") for key in ("set_id", "teacher_sha256", "sha256")]
    return [
        row.name,
        "" if row.paper is None else f"{row.paper:.2f}",
        "; ".join(part for part in (ours, row.state) if part),
        "" if row.difference is None else f"{row.difference:+.2f}",
        "" if row.samples is None else f"{row.samples:,}",
        "" if row.seconds is None else format_duration(row.seconds),
        *(", ".join(each[:SHORT] for each in digest.split(", ")) for digest in digests),
    ]


def text(rows: Iterable[RowResult]) -> list[str]:
    """Return a line for the terminal for each row."""
    found = []
    for row in rows:
        _, paper, ours, difference, _, time, *_ = cells(row)
        parts = [f"paper {paper}"] if paper else []
        parts += [row.state if row.mean is None else f"ours {ours}"]
        parts += [f"difference {difference}"] if difference else []
        parts += [f"{counted(row.samples, 'sample', ',')} in {time}"] if row.samples else []
        found.append(f"{row.group}, {row.name}: {', '.join(parts)}")
    return found


def _markdown_row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _escape(value: str) -> str:
    """Return a text on one line with the characters of Markdown and HTML escaped."""
    line = html_escape(_one_line(value), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|~#!" else c for c in line)


def _one_line(value: str) -> str:
    """Return a text on one line without unprintable characters."""
    return "".join(c for c in " ".join(value.split()) if c.isprintable())
