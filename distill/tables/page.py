"""A table's results as Markdown and as an HTML page that needs nothing else."""

import dataclasses
import itertools
from collections.abc import Iterable
from html import escape as html_escape

import jinja2

from distill.tables.results import Line
from distill.tables.schema import Table
from distill.training.cost_estimate import duration
from distill.training.provenance import DIGESTS
from manifests.support.counts import counted

HEADINGS = ("", "paper", "ours", "difference", "samples", "time", "set", "teacher", "result")
SHORT = 8
LEGEND = "Top-1 in percent at the last step; ± is the deviation over seeds. Times are of training alone."
NAMES = {
    **DIGESTS,
    "config_sha256": "config, with the order it gives",
    "sha256": "result's file",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What stands on it beside the results: ``facts`` are labels and texts, ``commands`` what was run, in order.

    ``command`` is the one that makes it all.
    """

    table: Table
    lines: list[Line]
    command: str
    facts: list[tuple[str, str]]
    commands: list[str]

    def groups(self) -> list[tuple[str, list[Line]]]:
        """Lines by group, both in the table's order; groups of which no line can be run are left out."""
        return [(name, lines) for name, lines in self._all_groups() if not all(line.lacks for line in lines)]

    def left_out(self) -> list[str]:
        """The groups that are left out, by what they lack, as sentences."""
        found: dict[str, list[str]] = {}
        for name, lines in self._all_groups():
            if all(line.lacks for line in lines):
                found.setdefault(lines[0].lacks, []).append(name)
        return [f"Left out, for want of {lacks}: {'; '.join(groups)}." for lacks, groups in found.items()]

    def _all_groups(self) -> list[tuple[str, list[Line]]]:
        return [(name, list(lines)) for name, lines in itertools.groupby(self.lines, key=lambda line: line.group)]


def markdown(page: Page) -> str:
    """The page as Markdown."""
    parts = [f"# {_plain(page.table.title)}", _plain(page.table.source)]
    parts += [_plain(page.table.note)] if page.table.note else []
    parts.append(f"    {_line_of(page.command)}")
    rows = [_row(HEADINGS), _row(["---"] + ["---:"] * 5 + ["---"] * 3)]
    for group, lines in page.groups():
        rows.append(_row([f"**{_plain(group)}**"] + [""] * (len(HEADINGS) - 1)))
        rows += [_row([_plain(cell) for cell in cells(line)]) for line in lines]
    parts += ["\n".join(rows), LEGEND, *map(_plain, page.left_out())]
    parts.append("\n".join(f"- {label}: {_plain(text)}" for label, text in page.facts))
    parts.append(
        "\n".join(["Commands, in the folder of the table:\n", *(f"    {_line_of(c)}" for c in page.commands)])
    )
    digests = [f"- {line.group}, {line.name}: {_digests(line)}" for line in page.lines if line.digests]
    parts += ["SHA-256:\n\n" + "\n".join(_plain(each) for each in digests)] if digests else []
    return "\n\n".join(parts) + "\n"


def html(page: Page) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distill", "tables"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("table.html.j2")
    return template.render(page=page, headings=HEADINGS, legend=LEGEND, cells=cells, names=NAMES)


def cells(line: Line) -> list[str]:
    """A line's texts, as ``HEADINGS`` has them; what is not there is empty, and what is missing stands under ours."""
    ours = "" if line.mean is None else f"{line.mean:.2f}"
    ours += "" if line.deviation is None else f" ± {line.deviation:.2f}"
    digests = [line.digests.get(key, "") for key in ("set_id", "teacher_sha256", "sha256")]
    return [
        line.name,
        "" if line.paper is None else f"{line.paper:.2f}",
        "; ".join(part for part in (ours, line.state) if part),
        "" if line.difference is None else f"{line.difference:+.2f}",
        "" if line.samples is None else f"{line.samples:,}",
        "" if line.seconds is None else duration(line.seconds),
        *(", ".join(each[:SHORT] for each in digest.split(", ")) for digest in digests),
    ]


def text(lines: Iterable[Line]) -> list[str]:
    """For a terminal: what each row reached."""
    found = []
    for line in lines:
        _, paper, ours, difference, _, time, *_ = cells(line)
        parts = [f"paper {paper}"] if paper else []
        parts += [line.state if line.mean is None else f"ours {ours}"]
        parts += [f"difference {difference}"] if difference else []
        parts += [f"{counted(line.samples, 'sample', ',')} in {time}"] if line.samples else []
        found.append(f"{line.group}, {line.name}: {', '.join(parts)}")
    return found


def _digests(line: Line) -> str:
    return "; ".join(f"{NAMES[key]} {value}" for key, value in line.digests.items())


def _row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _plain(value: str) -> str:
    """A text on one line, without what Markdown or HTML would take for more than text."""
    line = html_escape(_line_of(value), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|~#!" else c for c in line)


def _line_of(value: str) -> str:
    """A text on one line, without characters that show nothing."""
    return "".join(c for c in " ".join(value.split()) if c.isprintable())
