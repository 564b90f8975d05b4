"""Run the jobs of a table, one job at a time on each device.

A job starts after the jobs that it needs. Jobs that are done are skipped. A job that fails does not stop the other
jobs. ``OUT/jobs/NAME.log`` contains the output of a job.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.tables.jobs import Job, with_needs
from distill.tables.records import RECORDS, is_done, write_record
from distill.training.run_dir import METRICS_NAME
from manifests.support.console import note, printable

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.2
TAIL_BYTES = 4096
STOP_SECONDS = 600.0  # time in which a stopped job finishes an evaluation and saves a checkpoint


def run_jobs(
    jobs: dict[str, Job], out: Path, devices: list[str], ended: Callable[[Job], Any], tick: Callable[[list[Job]], Any]
) -> dict[str, str]:
    """Run ``jobs``, one job at a time on each of ``devices``; return the errors of failed jobs by name.

    ``ended`` is called when a job ends. ``tick`` is called several times a second with the running jobs.
    A job that is done is skipped, except if a waiting job needs the results. Then the command of the done job runs
    again, which checks and repairs the results. After a KeyboardInterrupt, the running jobs save checkpoints and
    stop, and then this function raises the KeyboardInterrupt.
    """
    failed: dict[str, str] = {}
    waiting = with_needs(jobs, [name for name, job in jobs.items() if not is_done(out, job)])
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}

    def end(job: Job, error: str | None) -> None:
        failed.update({} if error is None else {job.name: error})
        write_record(out, job, done=error is None, error=error)
        if error is not None:
            logger.info(printable(f"{job.name}: {error}"))
        ended(job)

    try:
        while waiting or running:
            for job in list(waiting.values()):
                if cause := next((need for need in job.needs if need in failed), None):
                    end(waiting.pop(job.name), f"needs {cause}, which failed: {failed[cause]}")
            for device in devices:
                unfinished = waiting.keys() | {job.name for job, _ in running.values()}
                ready = (job for job in waiting.values() if not unfinished.intersection(job.needs))
                if device not in running and (first := next(ready, None)):
                    logger.info(printable(f"$ {waiting.pop(first.name).command}"))
                    running[device] = first, _start(first, out, device)
            tick([job for job, _ in running.values()])
            time.sleep(POLL_SECONDS)
            for device, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[device]
                    end(job, _error_of(out, job, process.returncode))
    finally:
        _stop([process for _, process in running.values()])
    return failed


_RUN_CHILD = (
    "import runpy, sys; from manifests.support.processes import end_with; end_with(int(sys.argv.pop(1))); "
    "program = sys.argv.pop(1); runpy.run_module(program, run_name='__main__', alter_sys=True)"
)


def _import_path(job: Job) -> dict[str, str]:
    """Return the variable with which a job finds code of the user in the current folder, if it imports such code."""
    if "--allow-import" not in job.argv:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(Path.cwd())]))}


def _start(job: Job, out: Path, device: str) -> subprocess.Popen[bytes]:
    """Start the process of a job. The process ends when this program ends, also if this program is killed.

    The process has its own process group: Ctrl-C reaches only this program, which then stops the job.
    """
    write_record(out, job)
    (out / job.name).parent.mkdir(parents=True, exist_ok=True)
    program, *words = job.argv
    words += ["--device", device] if program == "distill" else []
    with (out / RECORDS / f"{job.name}.log").open("ab") as log:
        log.write(f"$ {job.command}\n".encode())
        log.flush()
        return subprocess.Popen(  # noqa: S603 - one of our two programs, no shell
            [sys.executable, "-c", _RUN_CHILD, str(os.getpid()), program, *words],
            cwd=out,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | _import_path(job),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )


def _error_of(out: Path, job: Job, status: int) -> str | None:
    """Return why an ended job has failed; None if the exit ``status`` is 0 and all result files exist."""
    if status == 0 and all((out / path).is_file() for path in job.results):
        return None
    log = f"{RECORDS}/{job.name}.log"
    if status < 0:
        why = "; the machine may have too little memory" if -status == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-status).name}{why} (output: {log})"
    *_, last = ["", *_tail(out / log).decode(errors="replace").strip().splitlines()]
    is_error = last.startswith((f"{job.argv[0]}: ", f"{job.argv[0]} "))
    return f"{last if is_error else f'ended with exit status {status}, last output: {last[:200]}'} (output: {log})"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop running jobs with SIGTERM. Kill them after ``STOP_SECONDS``, or when the user interrupts again."""
    for process in processes:
        process.terminate()
    with contextlib.suppress(OSError):  # stderr is closed
        if processes:
            note("stopping: the running jobs save checkpoints; press Ctrl-C again to kill them")
    end = time.monotonic() + STOP_SECONDS
    try:
        for process in processes:
            process.wait(max(0.0, end - time.monotonic()))
    except (KeyboardInterrupt, subprocess.TimeoutExpired) as stop:
        for process in processes:
            process.kill()
        if isinstance(stop, KeyboardInterrupt):
            raise


def samples_seen(out: Path, job: Job) -> int:
    """Return how many samples a training has seen, read from its log; 0 if there is no log."""
    for line in reversed(_tail(out / job.name / METRICS_NAME).splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["samples"])
    return 0


def _tail(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
        return file.read()
    return b""
