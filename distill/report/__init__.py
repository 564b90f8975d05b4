"""A report: what runs reached, from what and how, as one HTML page that needs nothing else.

``collect`` reads run directories, ``compare`` sets them side by side, ``chart`` and ``pictures`` draw, ``page`` says
what stands where, and ``page.html.j2`` is the page itself.
"""

import dataclasses
from pathlib import Path

from distill.errors import DistillError
from distill.report.collect import find_runs, read_run
from distill.report.compare import lines
from distill.report.page import render
from distill.report.pictures import read_photos
from manifests.files import describe_os_error, write_atomically

REPORT_NAME = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Where a page lies, and what its runs reached: a line each."""

    path: Path
    lines: list[str]


def write_report(runs: list[Path], out: Path | None, images: list[Path]) -> Report:
    """Write a page over the run directories ``runs``, or those in them.

    Without ``out`` that is ``report.html`` in the run directory, or in the folder that holds several runs. ``images``
    are photos of the runs' sets, over which outlines of patches are drawn.

    Raises:
        DistillError: nothing is there, a file is damaged, a photo belongs to no set, or the page cannot be written.
    """
    found = find_runs(runs)
    if out is None:
        if len(runs) > 1:
            raise DistillError("several folders are given; say with --out where their report goes")
        out = runs[0] / REPORT_NAME
    records = [read_run(folder) for folder in found]
    photos = read_photos(images)
    known = {source.sha256 for record in records if record.manifest for source in record.manifest.sources}
    for path, digest in zip(images, photos, strict=False):
        if digest not in known:
            raise DistillError(f"{path}: no set of these runs was made from this file; give the very photo")
    try:
        write_atomically(out, render(records, photos).encode())
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)}; choose another --out") from error
    return Report(path=out, lines=lines(records))
