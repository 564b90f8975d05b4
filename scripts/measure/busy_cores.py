"""Measure training beside one busy process for several OpenMP spin counts; see ``bench_distill --busy``."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from bench_loop import noise_loop

from distill import SPIN_COUNT
from distill.runtime.compile import Compile

SPINS = (0, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
"""Values of ``GOMP_SPINCOUNT``: 0 equals ``OMP_WAIT_POLICY=PASSIVE``, the last is the default of libgomp."""
DEFAULT = f"GOMP_SPINCOUNT {SPINS[-1]}"
DEFAULT_ENVIRONMENT = {"GOMP_SPINCOUNT": str(SPINS[-1])}
WARM_UP_SECONDS = 2.0
TURNS = 2


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy while the block runs."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            time.sleep(0.5)  # until it runs
            yield
        finally:
            process.kill()


def training_rates(
    arch: tuple[str, str], batch: int, device: torch.device, compiling: Compile, seconds: float
) -> dict[str, float]:
    """Return images per second of one training process: ``quiet``, and ``busy`` beside a busy process."""
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


def compare_spin_counts(measure: Callable[[dict[str, str]], dict[str, float]], rounds: int) -> list[str]:
    """Return a table as lines; ``measure`` returns ``training_rates`` of a process with given environment variables.

    Each share is relative to the quiet rate of the same round with libgomp's default, and the median over rounds.
    """
    settings = {f"GOMP_SPINCOUNT {spin}": {"GOMP_SPINCOUNT": str(spin)} for spin in SPINS}
    threads = torch.get_num_threads()
    if threads > 1:
        settings["one thread fewer"] = DEFAULT_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads - 1)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for number in range(rounds):
        for name in list(settings)[:: -1 if number % 2 else 1]:
            found[name].append(measure(settings[name]))
    lines = [f"{'':24s} {'quiet':>8s} {'share':>6s} {'busy':>8s} {'share':>6s}   ({threads} threads, images/s)"]
    for name, measured in found.items():
        row = f"{name:24s}"
        for state in ("quiet", "busy"):
            share = _share(measured, found[DEFAULT], state)
            row += f" {statistics.median(each[state] for each in measured):8.0f} {share:6.2f}"
        lines.append(row)
    quiet = _share(found[f"GOMP_SPINCOUNT {SPIN_COUNT}"], found[DEFAULT], "quiet")
    lines.append(f"distill, by default: {quiet:.2f} of the speed on a quiet machine")
    if threads > 1:
        busy = _share(found["one thread fewer"], found[DEFAULT], "busy")
        later = _share(found[f"GOMP_SPINCOUNT {SPIN_COUNT}"], found[DEFAULT], "busy")
        lines.append(f"{busy:.2f} beside a process that was busy when the run began, {later:.2f} if it came later")
    return lines


def _share(measured: list[dict[str, float]], default: list[dict[str, float]], state: str) -> float:
    """Return a rate relative to the quiet rate of the same round with libgomp's default; the median over rounds."""
    return statistics.median(each[state] / other["quiet"] for each, other in zip(measured, default, strict=True))
