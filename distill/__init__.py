"""Train students on patch sets against a frozen teacher.

``cli`` parses options and calls ``commands`` and ``tables``. ``training`` runs the training loop. ``data`` and
``augment`` create the batches, ``targets`` computes what the student learns, and ``evaluation`` measures the network.
"""

import os

SPIN_COUNT = 3_000
"""Loop turns that a waiting OpenMP thread spins before it sleeps. The default of libgomp, 300,000, keeps a core busy
for milliseconds while another thread needs the core; ``scripts/bench_distill --busy`` compares several numbers."""

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # libgomp reads the variable when torch is imported
