"""Train students on patch sets against a frozen teacher.

``commands`` and ``tables`` run what ``cli`` parsed; ``training`` runs the loop. ``data`` and ``augment`` make its
batches, ``targets`` the values to learn, and ``evaluation`` measures the result. ARCHITECTURE.md lists all folders.
"""

import os

SPIN_COUNT = 3_000
"""Turns that a waiting OpenMP thread spins before it sleeps. The default of libgomp, 300,000, keeps a core busy for
milliseconds while another thread needs that core; ``scripts/bench_distill --busy`` compares several values."""

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # libgomp reads the variable when torch is imported
