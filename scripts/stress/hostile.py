"""Run every case of ``tests/hostile`` in its own process and measure its time and memory.

    python scripts/stress/hostile.py [--only TEXT] [--jobs N]

Prints a line for each case and command: exit status, seconds, peak memory and the last line of stderr. The exit
status is 1 if a case was accepted, took more than 10 s or 500 MB, or printed more than one line. Seconds are CPU
seconds of the process, so other programs on the machine change little. A process is stopped after 120 s by the clock.

Memory is the peak resident memory of the process minus that of Python with the libraries of the program loaded,
because torch's libraries alone need several hundred megabytes.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SECONDS, MEMORY = 10, 500
STOPPED_AT = 120
ADDRESSES = 64 << 30
"""Maximum address space of a case in bytes, so that the machine survives it; torch itself needs a part of it."""
IDLE = {
    "python": "import manifests.untrusted.images, manifests.patchset, numpy",
    "patchgen": "import cv2, numpy, PIL.Image, pyarrow.parquet, patchgen.cli",
    "distill": "import distill.commands.train, distill.commands.make_logits, distill.commands.evaluate, "
    "distill.commands.convert, webdataset, pyarrow.parquet",
}
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
MAIN = {"patchgen": ("-m", "patchgen"), "distill": ("-m", "distill"), "python": ()}


class Ended(NamedTuple):
    """The result of a process: exit status, CPU seconds, peak resident memory in MiB, stdout and stderr."""

    status: int
    seconds: float
    memory: float
    out: str
    err: str


def run(arguments: list[str], folder: Path) -> Ended:
    """Run Python in ``folder``. This process imports little, because a child starts with its parent's peak memory."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=os.environ | {"XDG_CACHE_HOME": str(folder / ".cache")} | ENVIRONMENT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES)),  # noqa: PLW1509
            start_new_session=True,
        )
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - start > STOPPED_AT:
                child.kill()
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(1 << 20).decode("utf-8", "replace"))
        return Ended(child.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, texts[0], texts[1])


class Tried(NamedTuple):
    """The result of a case and command: printed line, faults, MiB and seconds."""

    line: str
    faults: list[str]
    memory: float
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases in whose names this regular expression is found")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time; one a core")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        return _try_all(Path(scratch), options.only, options.jobs)


def _try_all(scratch: Path, only: str, jobs: int) -> int:
    world = scratch / "world"
    world.mkdir()
    made = run(["-m", "tests.hostile.world", str(world)], world)
    if made.status:
        print(made.err)
        return 1
    shutil.rmtree(world / ".cache", ignore_errors=True)
    idle = {program: run(["-c", code], scratch).memory for program, code in IDLE.items()}
    print("loaded, before anything is read:", ", ".join(f"{name} {mib:.0f} MiB" for name, mib in idle.items()))
    listed = run(["-m", "tests.hostile", "list"], scratch).out.splitlines()
    cases = [line for line in listed if re.search(only, line.split("\t")[0])]
    with ThreadPoolExecutor(jobs) as pool:
        lanes = [pool.submit(_lane, scratch, f"here-{lane}", cases[lane::jobs], idle) for lane in range(jobs)]
        tried = [each for lane in lanes for each in lane.result()]
    wrong = [fault for each in tried for fault in each.faults]
    most, longest = max(each.memory for each in tried), max(each.seconds for each in tried)
    found = f"{len(cases)} cases at {len(tried)} entrances, at most {most:.0f} MiB and {longest:.1f} s"
    print(f"{found}; {len(wrong)} wrong")
    print(*wrong, sep="\n")
    return int(bool(wrong))


def _lane(scratch: Path, name: str, cases: list[str], idle: dict[str, float]) -> list[Tried]:
    """Run cases in sequence; each command runs in a new copy of the valid files."""
    tried = []
    with _maker(scratch / name) as maker:
        for line in cases:
            case, said, *entrances = line.split("\t")
            for entrance in entrances:
                here = Path(shutil.copytree(scratch / "world", scratch / name))
                fault = maker(case)
                result = Tried(case, [fault], 0, 0) if fault else _try(here, case, said, entrance, idle)
                shutil.rmtree(here)
                print("\n    WRONG: ".join([result.line, *result.faults]), flush=True)
                tried.append(result)
    return tried


@contextmanager
def _maker(here: Path) -> Iterator[Callable[[str], str]]:
    """Start a process that prepares cases in ``here``; yield a function that prepares one and returns an error."""
    command = [sys.executable, "-m", "tests.hostile", "serve", str(here)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=here.parent, env=os.environ | ENVIRONMENT, **streams) as process:

        def make(case: str) -> str:
            print(case, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield make
        process.stdin.close()


def _try(here: Path, case: str, said: str, entrance: str, idle: dict[str, float]) -> Tried:
    program, *arguments = ENTRANCES[entrance]
    ended = run([*MAIN[program], *arguments], here)
    memory = max(0.0, ended.memory - idle[program])
    last = (ended.err.strip().splitlines() or [""])[-1]
    line = f"{case} | {entrance} | {ended.status} | {ended.seconds:.1f} s | {memory:.0f} MiB | {last[:160]}"
    faults = [f"{case} | {entrance}: {fault}" for fault in _faults(ended, memory, said)]
    return Tried(line, faults, memory, ended.seconds)


def _faults(ended: Ended, memory: float, said: str) -> list[str]:
    faults = []
    if ended.status != 1:
        faults.append(f"status {ended.status}, expected 1")
    if len(ended.err.strip().splitlines()) != 1 or "Traceback" in ended.err:
        faults.append(f"not one line: {ended.err[-300:]!r}")
    if not any(part in ended.out + ended.err for part in said.split("|")):
        faults.append(f"says nothing of {said!r}")
    if memory > MEMORY:
        faults.append(f"{memory:.0f} MiB")
    if ended.seconds > SECONDS:
        faults.append(f"{ended.seconds:.1f} s")
    return faults


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from tests.hostile.case import ENTRANCES

    sys.exit(main())
