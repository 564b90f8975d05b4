"""Try every case of ``tests/hostile`` in a process of its own, and measure what each takes.

    python scripts/hostile.py [--only TEXT]

Prints a line a case and entrance: exit status, seconds, peak memory, and what was said. Ends with status 1 if one was
accepted, took longer than 10 s or more than 500 MB, or said anything else than one line.

Memory is resident memory as the kernel counts it, without what Python with the program's libraries takes before it
does anything: torch's libraries alone, mapped, are several hundred megabytes, and as many whatever is read.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SECONDS, MEMORY = 10, 500
STOPPED_AT = 60
ADDRESSES = 64 << 30
"""Bytes of address space that a case may take at most, so that the machine survives it; torch takes some itself."""
IDLE = {
    "python": "import manifests.images, manifests.patchset, numpy",
    "patchgen": "import cv2, numpy, PIL.Image, pyarrow.parquet, patchgen.cli",
    "distill": "import distill.run, distill.label, distill.measure, distill.convert, webdataset, pyarrow.parquet",
}
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
MAIN = {"patchgen": ("-m", "patchgen"), "distill": ("-m", "distill"), "python": ()}


class Ended(NamedTuple):
    """How a process ended: its status, seconds, peak resident memory in MiB, and both streams."""

    status: int
    seconds: float
    memory: float
    out: str
    err: str


def run(arguments: list[str], folder: Path) -> Ended:
    """Run Python in ``folder``. This process imports next to nothing: a child begins with its parent's peak."""
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
            seconds = time.monotonic() - start
            if pid:
                break
            if seconds > STOPPED_AT:
                child.kill()
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(1 << 20).decode("utf-8", "replace"))
        return Ended(child.returncode, seconds, used.ru_maxrss / 1024, texts[0], texts[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        return _try_all(Path(scratch), options.only)


def _try_all(scratch: Path, only: str) -> int:
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
    wrong, tried, most, longest = [], 0, 0.0, 0.0
    for line in listed:
        name, said, *entrances = line.split("\t")
        if only not in name:
            continue
        tried += 1
        for entrance in entrances:
            here = Path(shutil.copytree(world, scratch / "here"))
            made = run(["-m", "tests.hostile", "make", name], here)
            program, *arguments = ENTRANCES[entrance]
            ended = run([*MAIN[program], *arguments], here)
            shutil.rmtree(here)
            memory = max(0.0, ended.memory - idle[program])
            most, longest = max(most, memory), max(longest, ended.seconds)
            faults = [made.err] if made.status else _faults(ended, memory, said)
            last = (ended.err.strip().splitlines() or [""])[-1]
            print(
                f"{name} | {entrance} | {ended.status} | {ended.seconds:.1f} s | {memory:.0f} MiB | {last[:160]}",
                flush=True,
            )
            for fault in faults:
                wrong.append(f"{name} | {entrance}: {fault}")
                print(f"    WRONG: {fault}", flush=True)
    print(f"{tried} cases, at most {most:.0f} MiB and {longest:.1f} s; {len(wrong)} wrong")
    print(*wrong, sep="\n")
    return int(bool(wrong))


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
