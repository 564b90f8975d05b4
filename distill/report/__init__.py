"""Write a report: one self-contained HTML page with the results, data and settings of runs.

``run_files`` has the schemas of a run's files, ``collect`` reads run directories, ``compare`` compares several runs,
``chart`` and ``pictures`` draw, and ``page`` renders ``page.html.j2`` with the sentences of ``words.j2``.
"""

from pathlib import Path

from distill.errors import DistillError
from distill.report.collect import RunRecord, find_runs, read_run
from distill.report.compare import text_lines
from distill.report.page import render
from distill.report.pictures import read_photos
from distill.training.run_dir import SUMMARY_NAME, explain_errors
from manifests.support.console import printable, shell_word
from manifests.support.counts import counted
from manifests.support.files import write_atomically

REPORT_NAME = "report.html"


def write_report(paths: list[Path], out: Path | None, images: list[Path]) -> tuple[Path, list[str]]:
    """Write a report of runs. Return the path of the report, and a line of text for each run.

    Each of ``paths`` is a run directory or a folder of run directories. With one path, ``out`` defaults to
    ``report.html`` in this path. The page shows the outlines of patches on ``images``, the source photos of the sets.
    If some runs of a folder are damaged, the page contains their errors. If all runs are damaged, raise DistillError.
    """
    records, errors = _read(paths)
    if out is None and len(paths) > 1:
        raise DistillError(f"{counted(len(paths), 'folder')} are given, so the report needs a path; give --out FILE")
    out = out or paths[0] / REPORT_NAME
    if out.is_dir():
        raise DistillError(f"{out}: is a folder, expected a file name; choose another --out")
    sources = {source.sha256 for record in records if record.manifest for source in record.manifest.sources}
    page = render(records, read_photos(images, sources), errors)
    with explain_errors(out, "run the same command again, or choose another --out"):
        write_atomically(out, page.encode("utf-8", "backslashreplace"))  # file names may not be UTF-8
    return out, [*text_lines(records), *errors]


def refresh_report(out: Path) -> str:
    """Write the report of a finished run, or of several runs. Return a line that says where it is, or why it is not.

    Do not overwrite a report that is newer than the summary, because the user may have added a photo to the report.
    """
    page = out / REPORT_NAME
    try:
        if not page.exists() or page.stat().st_mtime < (out / SUMMARY_NAME).stat().st_mtime:
            write_report([out], None, [])
    except (DistillError, OSError) as error:
        again = f"distill report {shell_word(str(out))}"
        return f"the report was not written: {printable(str(error))}; correct this, then run: {again}"
    return f"report: {page}"


def _read(paths: list[Path]) -> tuple[list[RunRecord], list[str]]:
    """Read each run once. Return the runs, and an error message for each damaged run of a folder of runs."""
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
