"""Training beside one busy process, by how long OpenMP's threads spin: see ``bench_distill --busy``."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from bench_loop import noise_loop

from distill.runtime.compile import Compile
from distill.runtime.openmp import SPIN_COUNT

SPINS = (0, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
"""Values of ``GOMP_SPINCOUNT``: 0 is ``OMP_WAIT_POLICY=PASSIVE``, the last is what libgomp does unless told."""
UNTOLD = f"GOMP_SPINCOUNT {SPINS[-1]}"
UNTOLD_ENVIRONMENT = {"GOMP_SPINCOUNT": str(SPINS[-1])}
WARM_UP_SECONDS = 2.0
TURNS = 2


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy while the block runs, as another program would."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            time.sleep(0.5)  # until it runs
            yield
        finally:
            process.kill()


def rates_beside(
    arch: tuple[str, str], batch: int, device: torch.device, compiling: Compile, seconds: float
) -> dict[str, float]:
    """Return images a second of one process's training: ``quiet``, and ``busy`` beside a busy process, in turn."""
    steps = 10**6
    rates: dict[str, list[float]] = {"quiet": [], "busy": []}
    with noise_loop(arch, batch, steps, device, compiling, "live") as loop:
        numbers = iter(range(steps))

        def rate(limit: float) -> float:
            done, started = 0, time.perf_counter()
            while (passed := time.perf_counter() - started) < limit or not done:
                loop.train_step(next(numbers))
                done += batch
            return done / passed

        rate(WARM_UP_SECONDS)
        for _ in range(TURNS):
            rates["quiet"].append(rate(seconds))
            with busy_process():
                rates["busy"].append(rate(seconds))
    return {name: statistics.mean(values) for name, values in rates.items()}


def compare_waiting(measure: Callable[[dict[str, str]], dict[str, float]], rounds: int) -> list[str]:
    """Return a table as lines; ``measure`` gives ``rates_beside`` of a process with variables in its environment.

    Each share is of the quiet rate of the same round as OpenMP is untold, and the median of the rounds.
    """
    settings = {f"GOMP_SPINCOUNT {spin}": {"GOMP_SPINCOUNT": str(spin)} for spin in SPINS}
    threads = torch.get_num_threads()
    if threads > 1:
        settings["one thread fewer"] = UNTOLD_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads - 1)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for number in range(rounds):
        for name in list(settings)[:: -1 if number % 2 else 1]:
            found[name].append(measure(settings[name]))
    lines = [f"{'':24s} {'quiet':>8s} {'share':>6s} {'busy':>8s} {'share':>6s}   ({threads} threads, images/s)"]
    for name, measured in found.items():
        row = f"{name:24s}"
        for state in ("quiet", "busy"):
            share = _share(measured, found[UNTOLD], state)
            row += f" {statistics.median(each[state] for each in measured):8.0f} {share:6.2f}"
        lines.append(row)
    quiet = _share(found[f"GOMP_SPINCOUNT {SPIN_COUNT}"], found[UNTOLD], "quiet")
    lines.append(f"distill, by default: {quiet:.2f} of the speed on a quiet machine")
    if threads > 1:
        busy = _share(found["one thread fewer"], found[UNTOLD], "busy")
        later = _share(found[f"GOMP_SPINCOUNT {SPIN_COUNT}"], found[UNTOLD], "busy")
        lines.append(f"{busy:.2f} beside a process that was busy when the run began, {later:.2f} if it came later")
    return lines


def _share(measured: list[dict[str, float]], untold: list[dict[str, float]], state: str) -> float:
    """Return the median over the rounds of a rate as a share of the same round's quiet rate as OpenMP is untold."""
    return statistics.median(each[state] / other["quiet"] for each, other in zip(measured, untold, strict=True))
