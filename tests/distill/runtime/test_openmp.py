"""Test how long the threads of torch spin while they wait.

The tests load torch, or only its OpenMP library after ``distill``, and then read the setting from this library.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distill import SPIN_COUNT

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
PROGRAM = ["-m", "distill", "configs", "--keys", "train"]  # this command loads torch
LIBRARY = ["-c", "import distill.models"]
OPENMP = """
import ctypes, importlib.util, pathlib
import distill
folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent
for path in [*folder.glob("lib/libgomp*"), *folder.glob("../torch.libs/libgomp*")]:
    ctypes.CDLL(str(path))
"""
"""A script that loads the OpenMP library of torch as torch does, without torch, which needs seconds."""


def spin_count(call: list[str], chosen: dict[str, str]) -> int:
    """Start a Python process with ``chosen`` in the environment, and return the spin count of the OpenMP library."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | chosen
    run = subprocess.run([sys.executable, *call], env=environment, capture_output=True, text=True, check=True)
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", run.stderr)
    if not found:
        pytest.skip("torch comes with another OpenMP than libgomp here")
    assert len(found) == 1, run.stderr
    return int(found[0])


@pytest.mark.parametrize("call", [PROGRAM, LIBRARY], ids=["program", "library"])
def test_threads_spin_for_a_short_time(call: list[str]) -> None:
    assert spin_count(call, {}) == SPIN_COUNT


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"GOMP_SPINCOUNT": "77"}, 77),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, 0),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, 30_000_000_000),
    ],
)
def test_what_the_user_chose_stays(chosen: dict[str, str], expected: int) -> None:
    assert spin_count(["-c", OPENMP], chosen) == expected


def test_the_manual_says_it() -> None:
    assert f"`GOMP_SPINCOUNT={SPIN_COUNT}`" in (Path(__file__).parents[3] / "docs" / "limits.md").read_text()
