"""Test that the bytes do not depend on the CPU features that OpenCV and NumPy use.

The tests disable features of this machine's CPU.
"""

import json
import os
import subprocess
import sys

import pytest

from patchgen.doctor import goldens

AVX512 = "AVX512-SKX"
AVX2 = f"AVX2,{AVX512}"
BASELINE = f"SSE4.1,SSE4.2,AVX,FP16,{AVX2}"
NUMBERS = {"SSE4.1": 6, "SSE4.2": 7, "FP16": 9, "AVX": 10, "AVX2": 11, "AVX512-SKX": 256}
"""OpenCV's numbers of these CPU features (cv::CpuFeatures). OpenCV's Python module has no names for them."""

# The script rebuilds the reference sets in one process. Its last line is a JSON object.
SCRIPT = """
import json, sys
import cv2
from patchgen.doctor import examine

cv2.setUseOptimized(sys.argv[1] == "optimised")
left = [number for number in json.loads(sys.argv[2]) if cv2.checkHardwareSupport(number)]
if left:
    sys.exit(f"features {left} are still in use")
print(json.dumps({name: expected.set_id == built.set_id for name, expected, built in examine()}))
"""


@pytest.mark.parametrize(
    ("environment", "optimised"),
    [
        ({"OPENCV_CPU_DISABLE": AVX512}, "optimised"),
        ({"OPENCV_CPU_DISABLE": AVX2, "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3"}, "optimised"),
        ({"OPENCV_CPU_DISABLE": BASELINE}, "optimised"),
        ({"OPENCV_IPP": "disabled"}, "optimised"),
        ({}, "plain"),
    ],
    ids=["no AVX-512", "no AVX2", "SSE3 baseline", "no IPP", "setUseOptimized(False)"],
)
def test_digests_at_other_dispatch_levels(environment: dict[str, str], optimised: str) -> None:
    disabled = environment.get("OPENCV_CPU_DISABLE", "").split(",")
    numbers = json.dumps([NUMBERS[name] for name in disabled if name])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, optimised, numbers],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert set(found) == set(goldens())
    assert [name for name, good in found.items() if not good] == []
