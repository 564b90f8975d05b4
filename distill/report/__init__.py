"""A report: what runs reached, from what and how, as one HTML page that needs nothing else.

``collect`` reads run directories, ``compare`` sets them side by side, ``chart`` and ``pictures`` draw, ``page`` says
what stands where, and ``page.html.j2`` is the page itself; ``files`` is what the files of a run hold.
"""

import dataclasses
from pathlib import Path

from distill.errors import DistillError
from distill.report.collect import RunRecord, find_runs, read_run
from distill.report.compare import lines
from distill.report.page import render
from distill.report.pictures import read_photos
from manifests.support.files import describe_os_error, write_atomically

REPORT_NAME = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Where a page lies, and what its runs reached: a line each."""

    path: Path
    lines: list[str]


def write_report(paths: list[Path], out: Path | None, images: list[Path]) -> Report:
    """Write a page over the run directories ``paths``, or those in them.

    Without ``out`` that is ``report.html`` in the run directory, or in the folder that holds several runs. ``images``
    are photos of the runs' sets, over which outlines of patches are drawn.

    Raises:
        DistillError: nothing is there, a run that was named is damaged, or all in a folder are, a photo belongs to no
            set, or the page cannot be written.
    """
    records, unread = _read(paths)
    if out is None:
        if len(paths) > 1:
            raise DistillError("several folders are given; say with --out where their report goes")
        out = paths[0] / REPORT_NAME
    if out.is_dir():
        raise DistillError(f"{out}: is a folder; give --out the name of a file")
    known = {source.sha256 for record in records if record.manifest for source in record.manifest.sources}
    page = render(records, read_photos(images, known), unread)
    try:
        write_atomically(out, page.encode("utf-8", "backslashreplace"))  # a file name may be no UTF-8
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)}; choose another --out") from error
    return Report(path=out, lines=[*lines(records), *unread])


def _read(paths: list[Path]) -> tuple[list[RunRecord], list[str]]:
    """Every run once, and what is wrong with those in a folder that cannot be read."""
    records: dict[Path, RunRecord] = {}
    unread = []
    for path in paths:
        for folder in find_runs(path):
            try:
                records.setdefault(folder.resolve(), read_run(folder))
            except DistillError as error:
                if folder == path:
                    raise
                unread.append(str(error))
    if not records:
        raise DistillError(unread[0])
    return list(records.values()), unread
