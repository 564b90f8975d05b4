"""Jobs run: each when what it needs is there, one a device, the finished ones skipped, whatever fails left alone.

What a job said is in ``OUT/jobs/NAME.log``, beside its record.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from distill.tables.jobs import Job
from distill.tables.records import RECORDS, is_done, write_record
from distill.training.run_dir import METRICS_NAME

POLL_SECONDS = 0.2
TAIL_BYTES = 4096
STOP_SECONDS = 600.0
"""Longest that a job that was told to stop may take: to finish a step or an evaluation, and to save itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Events:
    """What ``run_jobs`` tells while it runs: a job began, a job ended (with what went wrong, or None), time passed.

    ``passed`` hears which jobs run.
    """

    began: Callable[[Job], None]
    ended: Callable[[Job, str | None], None]
    passed: Callable[[list[Job]], None]


def run_jobs(jobs: Mapping[str, Job], out: Path, devices: list[str], events: Events) -> dict[str, str]:
    """Run ``jobs``, one at a time on each of ``devices``; returns what went wrong, by job.

    What is done is skipped, unless a job that is to run needs it: then its own command looks whether it is whole, and
    makes it again if not. A KeyboardInterrupt stops those that run, which save what they have, and goes on up.
    """
    failed: dict[str, str] = {}
    waiting = _to_run(jobs, out)
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for name, job in list(waiting.items()):
                lost = next((need for need in job.needs if need in failed), None)
                if lost is not None:
                    failed[name] = f"needs {lost}: {failed[lost]}"
                    del waiting[name]
                    write_record(out, job, wrong=failed[name])
                    events.ended(job, failed[name])
            for device in devices:
                job_next = None if device in running else _ready(waiting, running)
                if job_next is not None:
                    del waiting[job_next.name]
                    events.began(job_next)
                    running[device] = job_next, _start(job_next, out, device)
            events.passed([job for job, _ in running.values()])
            time.sleep(POLL_SECONDS)
            for device, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[device]
                    wrong = _outcome(out, job, process.returncode)
                    failed |= {} if wrong is None else {job.name: wrong}
                    write_record(out, job, done=wrong is None, wrong=wrong)
                    events.ended(job, wrong)
    finally:
        _stop([process for _, process in running.values()])
    return failed


def _to_run(jobs: Mapping[str, Job], out: Path) -> dict[str, Job]:
    wanted = {name for name, job in jobs.items() if not is_done(out, job)}
    for name in reversed(list(jobs)):  # each comes after what it needs
        if name in wanted:
            wanted.update(need for need in jobs[name].needs if need in jobs)
    return {name: job for name, job in jobs.items() if name in wanted}


def _ready(waiting: Mapping[str, Job], running: Mapping[str, tuple[Job, object]]) -> Job | None:
    unfinished = waiting.keys() | {job.name for job, _ in running.values()}
    return next((job for job in waiting.values() if not unfinished.intersection(job.needs)), None)


_FOLLOW = (
    "import runpy, sys; from manifests.support.processes import end_with; end_with(int(sys.argv.pop(1))); "
    "program = sys.argv.pop(1); runpy.run_module(program, run_name='__main__', alter_sys=True)"
)


def _start(job: Job, out: Path, device: str) -> subprocess.Popen[bytes]:
    """Begin a job that ends when this program does, however that ends.

    It is in a group of its own, so that Ctrl-C reaches it once, and by way of this program.
    """
    write_record(out, job)
    (out / job.name).parent.mkdir(parents=True, exist_ok=True)
    program, *words = job.argv
    words += ["--device", device] if program == "distill" else []
    with _log(out, job).open("ab") as log:
        log.write(f"$ {job.command}\n".encode())
        log.flush()
        return subprocess.Popen(  # noqa: S603 - one of our two programs, no shell
            [sys.executable, "-c", _FOLLOW, str(os.getpid()), program, *words],
            cwd=out,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )


def _log(out: Path, job: Job) -> Path:
    return out / RECORDS / f"{job.name}.log"


def _outcome(out: Path, job: Job, status: int) -> str | None:
    """What went wrong with a job that has ended, or None."""
    if status == 0 and (out / job.result).is_file():
        return None
    where = f"all it said: {RECORDS}/{job.name}.log"
    if status < 0:
        why = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-status).name}{why} ({where})"
    lines = _tail(_log(out, job)).decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    program = job.argv[0]
    said = last if last.startswith((f"{program}: ", f"{program} ")) else f"ended with status {status}; {last[:200]}"
    return f"{said} ({where})"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End what runs as if the user had asked it to; a second interruption kills it, and so does a long wait."""
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
    """How far a training is, as its log says."""
    for line in reversed(_tail(out / job.name / METRICS_NAME).splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["samples"])
    return 0


def _tail(path: Path) -> bytes:
    """The end of a file, or nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            return file.read()
    except OSError:
        return b""
