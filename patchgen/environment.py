"""What a set was made with: versions, and for a ``fast`` recipe the CPU features it may depend on."""

import importlib.metadata
import platform
from typing import Any

import cv2

PACKAGES = ("albumentations", "numpy", "opencv-python-headless", "pyarrow", "single-image-distillation")


def environment(profile: str) -> dict[str, Any]:
    """The ``environment`` of a manifest."""
    found: dict[str, Any] = {name: importlib.metadata.version(name) for name in PACKAGES}
    found |= {"python": platform.python_version(), "machine": platform.machine()}
    if profile == "fast":
        found["cpu_features"] = cpu_features()
    return found


def cpu_features() -> str:
    """The CPU features OpenCV uses here, in its own words."""
    return " ".join(str(cv2.getCPUFeaturesLine()).split())


def opencv_major(recorded: dict[str, Any]) -> tuple[str, str]:
    """OpenCV's major version in a manifest's environment and on this machine; \"\" where it is not recorded."""
    there = recorded.get("opencv-python-headless")
    return there.split(".")[0] if isinstance(there, str) else "", cv2.__version__.split(".")[0]
