"""How long the threads of torch's OpenMP spin while they wait for each other."""

import os

SPIN_COUNT = 3_000
"""Turns that a waiting thread spins before it sleeps. libgomp's own 300,000 take milliseconds, for which it holds a
core that the thread it waits for may need; ``scripts/bench_distill --busy`` measures several values."""
_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> None:
    """Set ``GOMP_SPINCOUNT`` in the environment, unless the user has chosen how threads wait.

    libgomp, which comes with torch, reads it once, when it is loaded: call this before torch is imported. Processes
    that are started later inherit it.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
