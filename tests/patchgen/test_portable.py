"""The same bytes at every dispatch level of OpenCV and NumPy that this machine can pretend to have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
AVX512 = "AVX512-SKX"
AVX2 = f"AVX2,{AVX512}"
BASELINE = f"SSE4.1,SSE4.2,AVX,FP16,{AVX2}"
NUMBERS = {"SSE4.1": 6, "SSE4.2": 7, "FP16": 9, "AVX": 10, "AVX2": 11, "AVX512-SKX": 256}
"""OpenCV's numbers of these features (cv::CpuFeatures), which its Python module does not name."""

# Builds the sets of golden.json in one process; the last line of its output is a JSON object like that file.
SCRIPT = """
import json, sys
from pathlib import Path
import cv2
from patchgen.build import build
from patchgen.plan import make_plan
from patchgen.recipe import load_recipe
from patchgen.source import read_photo

cv2.setUseOptimized(sys.argv[3] == "optimised")
left = [number for number in json.loads(sys.argv[4]) if cv2.checkHardwareSupport(number)]
if left:
    sys.exit(f"features {left} are still in use")
found = {}
for image_format in ("png", "jpg", "webp", "ppm"):
    photo, recipe = read_photo(Path(sys.argv[1])), load_recipe("asano2023").with_format(image_format)
    plan = make_plan(photo=photo, recipe=recipe, n=300, size=32, seed=5, shard_size=None, card={})
    manifest = build(plan, photo, Path(sys.argv[2]) / image_format, workers=1)
    found[image_format] = {"pixel_root": manifest.pixel_root, "set_id": manifest.set_id}
print(json.dumps(found))
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
def test_digests_at_other_dispatch_levels(
    environment: dict[str, str], optimised: str, photo_path: Path, tmp_path: Path
) -> None:
    disabled = environment.get("OPENCV_CPU_DISABLE", "").split(",")
    numbers = json.dumps([NUMBERS[name] for name in disabled if name])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, photo_path, tmp_path, optimised, numbers],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout.splitlines()[-1]) == GOLDEN
