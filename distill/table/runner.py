"""Jobs run: each when what it needs is there, one a device, the finished ones skipped, whatever fails left alone.

``OUT/jobs/NAME.json`` says by which command a job was begun, so that a folder never mixes two tables; its output is
in ``NAME.log`` beside it.
"""

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from distill.errors import DistillError
from distill.session import METRICS_NAME
from distill.table.jobs import Job
from manifests.canonical import parse_json
from manifests.errors import PatchSetError
from manifests.files import read_regular_file, write_atomically

RECORDS = "jobs"
POLL_SECONDS = 0.2
TAIL_BYTES = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Events:
    """What ``run_jobs`` tells while it runs: a job began, a job ended (with what went wrong, or None), time passed.

    ``passed`` hears which jobs run.
    """

    began: Callable[[Job], None]
    ended: Callable[[Job, str | None], None]
    passed: Callable[[list[Job]], None]


def is_done(out: Path, job: Job) -> bool:
    """Whether a job has its result, by the command that it is now."""
    return (out / job.result).is_file() and _record(out, job) == list(job.argv)


def require_same_table(out: Path, jobs: Mapping[str, Job]) -> None:
    """Make sure that nothing in ``out`` was begun by another command.

    Raises:
        DistillError: one was.
    """
    for job in jobs.values():
        held = _record(out, job)
        begun = (out / job.name).exists() or (out / job.result).exists()
        if begun and held is not None and held != list(job.argv):
            raise DistillError(
                f"{out}: {job.name} was begun as `{shlex.join(held)}`, and is now `{job.command}`; "
                "ask for the same again, or choose another --out"
            )


def _record(out: Path, job: Job) -> list[str] | None:
    path = out / RECORDS / f"{job.name}.json"
    if not path.exists():
        return None
    try:
        value = parse_json(read_regular_file(path, 1 << 20), str(path))
    except (OSError, PatchSetError):
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("argv"), list):
        raise DistillError(f"{path}: damaged; delete it and {out / job.name}")
    return [str(word) for word in value["argv"]]


def run_jobs(jobs: Mapping[str, Job], out: Path, devices: list[str], events: Events) -> dict[str, str]:
    """Run ``jobs``, one at a time on each of ``devices``; returns what went wrong, by job.

    A KeyboardInterrupt stops those that run, which save what they have, and goes on up.
    """
    failed: dict[str, str] = {}
    waiting = {name: job for name, job in jobs.items() if not is_done(out, job)}
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or running:
            for name, job in list(waiting.items()):
                lost = next((need for need in job.needs if need in failed), None)
                if lost is not None:
                    failed[name] = f"needs {lost}, which failed"
                    del waiting[name]
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
                    events.ended(job, wrong)
    finally:
        _stop([process for _, process in running.values()])
    return failed


def _ready(waiting: Mapping[str, Job], running: Mapping[str, tuple[Job, object]]) -> Job | None:
    unfinished = waiting.keys() | {job.name for job, _ in running.values()}
    return next((job for job in waiting.values() if not unfinished.intersection(job.needs)), None)


def _start(job: Job, out: Path, device: str) -> subprocess.Popen[bytes]:
    """Begin a job; in a group of its own, so that Ctrl-C reaches it once and by way of this program."""
    record = out / RECORDS / f"{job.name}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    (out / job.name).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, (json.dumps({"argv": list(job.argv)}, indent=1) + "\n").encode())
    program, *words = job.argv
    words += ["--device", device] if program == "distill" else []
    with record.with_suffix(".log").open("ab") as log:
        log.write(f"$ {job.command}\n".encode())
        log.flush()
        return subprocess.Popen(  # noqa: S603 - one of our two programs, no shell
            [sys.executable, "-m", program, *words],
            cwd=out,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )


def _outcome(out: Path, job: Job, status: int) -> str | None:
    if status == 0 and (out / job.result).is_file():
        return None
    log = f"{RECORDS}/{job.name}.log"
    lines = _tail(out / log).decode(errors="replace").strip().splitlines()
    said = lines[-1] if lines and not lines[-1].startswith("$ ") else f"ended with status {status}"
    return f"{said} (all of it: {log})"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End what runs as if the user had asked it to; a second interruption kills it."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
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
