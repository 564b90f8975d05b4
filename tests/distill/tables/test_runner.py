"""Test how the jobs of a table run: order, failures, progress, and jobs that do not stop."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import DistillError
from distill.tables import runner
from distill.tables.jobs import Job
from distill.tables.records import is_done, read_record
from distill.tables.runner import run_jobs, samples_seen


def job(name: str, *argv: str, needs: tuple[str, ...] = ()) -> Job:
    words = ("patchgen", "source", "noise", *argv)
    return Job(name=name, argv=words, results=(f"{name}.png",), needs=needs, identity={"command": list(words)})


def test_jobs_wait_for_what_they_need_and_share_devices(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A job starts after all needed jobs. If a needed job fails, the job does not start.

    Each device runs one job at a time.
    """
    caplog.set_level("INFO", "distill")
    made = {
        each.name: each
        for each in (
            job("i/a", "--size", "8x8", "--out", "i/a.png"),
            job("i/b", "--size", "wrong", "--out", "i/b.png"),
            job("i/c", "--size", "8x8", "--out", "i/c.png", needs=("i/a",)),
            job("i/d", "--size", "8x8", "--out", "i/d.png", needs=("i/b",)),
            job("i/e", "--size", "8x8", "--out", "other.png"),
        )
    }
    most = 0

    def waited(running: list[Job]) -> None:
        nonlocal most
        most = max(most, len(running))

    def ended(each: Job) -> None:
        logging.getLogger("distill").info(f"ended {each.name}")

    failed = run_jobs(made, tmp_path, ["cpu", "cpu2"], ended=ended, tick=waited)
    seen = caplog.messages
    assert failed.keys() == {"i/b", "i/d", "i/e"} and most == 2
    assert "'wrong'" in failed["i/b"] and "(output: jobs/i/b.log)" in failed["i/b"]
    assert failed["i/d"] == f"needs i/b, which failed: {failed['i/b']}"
    assert f"$ {made['i/d'].command}" not in seen and f"i/b: {failed['i/b']}" in seen
    assert failed["i/e"].startswith("ended with exit status 0, last output: other.png: 8×8 px")
    assert seen.index("ended i/a") < seen.index(f"$ {made['i/c'].command}")
    assert [name for name in made if is_done(tmp_path, made[name])] == ["i/a", "i/c"]
    caplog.clear()
    assert run_jobs({"i/a": made["i/a"]}, tmp_path, ["cpu"], ended=ended, tick=waited) == {}
    assert not caplog.messages
    (tmp_path / "jobs/i/a.json").write_text("{")
    with pytest.raises(DistillError, match=r"a\.json: is damaged; delete the file"):
        read_record(tmp_path, "i/a")


def test_a_job_that_is_killed_says_so(tmp_path: Path) -> None:
    long = job("i/a", "--size", "16000x16000", "--out", "i/a.png")
    killed = False

    def waited(running: list[Job]) -> None:
        nonlocal killed
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children if running and not killed else []:  # earlier tests may have left other children
            if b"i/a.png" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
                killed = True

    failed = run_jobs({"i/a": long}, tmp_path, ["cpu"], ended=lambda each: None, tick=waited)
    assert killed and failed == {
        "i/a": "killed by SIGKILL; the machine may have too little memory (output: jobs/i/a.log)"
    }


def test_how_far_a_training_is(tmp_path: Path) -> None:
    """Progress is read from the last complete line of the log."""
    each = Job(name="run", argv=("distill",), results=("x",))
    assert samples_seen(tmp_path, each) == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"samples": 5}\n{"samples": 9, "loss": 1}\n{"sam')
    assert samples_seen(tmp_path, each) == 9


def test_a_job_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "STOP_SECONDS", 0.3)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        runner._stop([process])
        assert process.wait(60) == -signal.SIGKILL
