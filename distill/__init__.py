"""Train students on patch sets against a frozen teacher.

``cli`` parses options and calls ``commands`` and ``tables``. ``training`` runs the training loop. ``data`` and
``augment`` create the batches, ``targets`` computes what the student learns, and ``evaluation`` measures the network.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

SPIN_COUNT = 3_000
"""Loop turns that a waiting OpenMP thread spins before it sleeps. The default of libgomp, 300,000, keeps a core busy
for milliseconds while another thread needs the core; ``scripts/bench_distill --busy`` compares several numbers."""

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # libgomp reads the variable when torch is imported

if TYPE_CHECKING:
    from distill.api import TrainResult, evaluate, load_network, train, train_teacher
    from distill.errors import DistillError
    from distill.targets.teacher import Network, Teacher
    from distill.training.callbacks import Callback
    from manifests.support.user_code import allow_import
else:
    _MODULES = {
        "allow_import": "manifests.support.user_code",
        **dict.fromkeys(("TrainResult", "evaluate", "load_network", "train", "train_teacher"), "distill.api"),
        "DistillError": "distill.errors",
        **dict.fromkeys(("Network", "Teacher"), "distill.targets.teacher"),
        "Callback": "distill.training.callbacks",
    }

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used. An early import of torch would slow down every --help."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


__all__ = [
    "Callback",
    "DistillError",
    "Network",
    "Teacher",
    "TrainResult",
    "allow_import",
    "evaluate",
    "load_network",
    "train",
    "train_teacher",
]
