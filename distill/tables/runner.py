"""Run the jobs of a table: each after those it needs, one at a time on each device.

Jobs that are done are skipped, and a job that fails does not stop the others. The output of a job is in
``OUT/jobs/NAME.log``, beside its record.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from distill.tables.jobs import Job, with_needs
from distill.tables.records import RECORDS, is_done, write_record
from distill.training.run_dir import METRICS_NAME

POLL_SECONDS = 0.2
TAIL_BYTES = 4096
STOP_SECONDS = 600.0  # for a stopped job to finish a step or an evaluation and save a checkpoint


class Events(NamedTuple):
    """Callbacks of ``run_jobs``: a job started; a job ended, with its error or None; time passed while jobs run."""

    started: Callable[[Job], None]
    ended: Callable[[Job, str | None], None]
    waited: Callable[[list[Job]], None]


def run_jobs(jobs: Mapping[str, Job], out: Path, devices: list[str], events: Events) -> dict[str, str]:
    """Run ``jobs``, one at a time on each of ``devices``; returns the errors of failed jobs, by name.

    A job that is done is skipped, unless a job that runs needs it: then its own command checks its results, and
    repairs them. A KeyboardInterrupt stops the running jobs, which save checkpoints, and is raised again.
    """
    failed: dict[str, str] = {}
    waiting = with_needs(jobs, [name for name, job in jobs.items() if not is_done(out, job)])
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}

    def end(job: Job, error: str | None) -> None:
        failed.update({} if error is None else {job.name: error})
        write_record(out, job, done=error is None, error=error)
        events.ended(job, error)

    try:
        while waiting or running:
            for job in list(waiting.values()):
                if cause := next((need for need in job.needs if need in failed), None):
                    end(waiting.pop(job.name), f"needs {cause}: {failed[cause]}")
            for device in devices:
                unfinished = waiting.keys() | {job.name for job, _ in running.values()}
                ready = (job for job in waiting.values() if not unfinished.intersection(job.needs))
                if device not in running and (first := next(ready, None)):
                    events.started(waiting.pop(first.name))
                    running[device] = first, _start(first, out, device)
            events.waited([job for job, _ in running.values()])
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


def _start(job: Job, out: Path, device: str) -> subprocess.Popen[bytes]:
    """Start a job that ends when this program ends, also if this program is killed.

    It has its own process group: Ctrl-C reaches only this program, which then stops the job.
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
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )


def _error_of(out: Path, job: Job, status: int) -> str | None:
    """Return the error of a job that has ended, or None if it has its results."""
    if status == 0 and all((out / path).is_file() for path in job.results):
        return None
    log = f"{RECORDS}/{job.name}.log"
    if status < 0:
        why = ", perhaps because memory ran out" if -status == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-status).name}{why} (its output: {log})"
    *_, last = ["", *_tail(out / log).decode(errors="replace").strip().splitlines()]
    is_error = last.startswith((f"{job.argv[0]}: ", f"{job.argv[0]} "))
    return f"{last if is_error else f'ended with status {status}; {last[:200]}'} (its output: {log})"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask running jobs to stop, as Ctrl-C would; a second interruption, or a long wait, kills them."""
    for process in processes:
        process.terminate()
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
    """Return the samples that a training has seen according to its log."""
    for line in reversed(_tail(out / job.name / METRICS_NAME).splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["samples"])
    return 0


def _tail(path: Path) -> bytes:
    """Return the end of a file; empty if there is none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
        return file.read()
    return b""
