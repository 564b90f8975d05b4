"""Test that the bytes do not depend on the CPU features that OpenCV and NumPy use.

The tests disable features of this machine's CPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchgen.doctor import golden_photos, goldens

AVX512 = "AVX512-SKX"
AVX2 = f"AVX2,{AVX512}"
BASELINE = f"SSE4.1,SSE4.2,AVX,FP16,{AVX2}"
NUMBERS = {"SSE4.1": 6, "SSE4.2": 7, "FP16": 9, "AVX": 10, "AVX2": 11, "AVX512-SKX": 256}
"""OpenCV's numbers of these CPU features (cv::CpuFeatures). OpenCV's Python module has no names for them."""

# The script rebuilds the reference sets in one process. Its last line is a JSON object.
SCRIPT = """
import json, sys
from pathlib import Path
import cv2
from patchgen.doctor import golden_photos, goldens
from patchgen.pipeline.build import build
from patchgen.pipeline.plan import plan_of

_, optimised, numbers, photo_folder, folder = sys.argv
cv2.setUseOptimized(optimised == "optimised")
left = [number for number in json.loads(numbers) if cv2.checkHardwareSupport(number)]
if left:
    sys.exit(f"features {left} are still in use")
found = {}
for name, expected in goldens().items():
    photos = golden_photos(expected, Path(photo_folder))
    plan = plan_of(expected, photos, n=expected.n)
    found[name] = expected.set_id == build(plan, photos, Path(folder) / name, workers=1).set_id
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the photos of the reference sets once. NumPy makes them, so OpenCV's features do not matter."""
    folder = tmp_path_factory.mktemp("photos")
    for manifest in goldens().values():
        golden_photos(manifest, folder)
    return folder


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
def test_digests_at_other_dispatch_levels(
    environment: dict[str, str], optimised: str, photo_folder: Path, tmp_path: Path
) -> None:
    disabled = environment.get("OPENCV_CPU_DISABLE", "").split(",")
    numbers = json.dumps([NUMBERS[name] for name in disabled if name])
    photos = tmp_path / "photos" if "NPY_DISABLE_CPU_FEATURES" in environment else photo_folder
    photos.mkdir(exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, optimised, numbers, photos, tmp_path],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert set(found) == set(goldens())
    assert [name for name, good in found.items() if not good] == []
