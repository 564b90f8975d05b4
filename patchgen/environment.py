"""Record what a set was built with."""

import importlib.metadata
import platform

import cv2

PACKAGES = ("albumentations", "numpy", "opencv-python-headless", "pyarrow", "single-image-distillation")


def environment(profile: str) -> dict[str, str]:
    """Return the ``environment`` of a manifest: versions, and for a ``fast`` recipe the CPU features of OpenCV."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found |= {"python": platform.python_version(), "machine": platform.machine()}
    if profile == "fast":
        found["cpu_features"] = " ".join(str(cv2.getCPUFeaturesLine()).split())
    return found
