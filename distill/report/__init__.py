"""A report: what runs reached, from which data and how, as one self-contained HTML page.

``run_files`` are the schemas of a run's files; ``collect`` reads run directories; ``compare`` puts several side by
side; ``chart`` and ``pictures`` draw; ``page`` renders ``page.html.j2``, with the sentences of ``words.j2``.
"""

import dataclasses
from pathlib import Path

from distill.errors import DistillError
from distill.report.collect import RunRecord, find_runs, read_run
from distill.report.compare import text_lines
from distill.report.page import render
from distill.report.pictures import read_photos
from manifests.support.files import describe_os_error, write_atomically

REPORT_NAME = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The path of a report, and a line of text for each run."""

    path: Path
    lines: list[str]


def write_report(paths: list[Path], out: Path | None, images: list[Path]) -> Report:
    """Write a report over the run directories ``paths``, or the run directories in them.

    ``out`` defaults to ``report.html`` in the only path. ``images`` are source photos of the runs' sets, to draw the
    outlines of patches on. A damaged run in a folder is an error only if it is the only one.
    """
    records, errors = _read(paths)
    if out is None and len(paths) > 1:
        raise DistillError("several folders are given; give --out, the path of their report")
    out = out or paths[0] / REPORT_NAME
    if out.is_dir():
        raise DistillError(f"{out}: is a folder; give --out the name of a file")
    sources = {source.sha256 for record in records if record.manifest for source in record.manifest.sources}
    page = render(records, read_photos(images, sources), errors)
    try:
        write_atomically(out, page.encode("utf-8", "backslashreplace"))  # file names may not be UTF-8
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)}; choose another --out") from error
    return Report(path=out, lines=[*text_lines(records), *errors])


def _read(paths: list[Path]) -> tuple[list[RunRecord], list[str]]:
    """Return every run once, and the errors of those in a folder that cannot be read."""
    records: dict[Path, RunRecord] = {}
    errors = []
    for path in paths:
        for folder in find_runs(path):
            try:
                records.setdefault(folder.resolve(), read_run(folder))
            except DistillError as error:
                if folder == path:
                    raise
                errors.append(str(error))
    if not records:
        raise DistillError(errors[0])
    return list(records.values()), errors
