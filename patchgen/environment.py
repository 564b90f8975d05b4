"""Record what a set was built with: versions, and for a ``fast`` recipe the CPU features it may depend on."""

import importlib.metadata
import platform
from typing import Any

import cv2

PACKAGES = ("albumentations", "numpy", "opencv-python-headless", "pyarrow", "single-image-distillation")


def environment(profile: str) -> dict[str, Any]:
    """Return the ``environment`` of a manifest."""
    found: dict[str, Any] = {name: importlib.metadata.version(name) for name in PACKAGES}
    found |= {"python": platform.python_version(), "machine": platform.machine()}
    if profile == "fast":
        found["cpu_features"] = cpu_features()
    return found


def cpu_features() -> str:
    """Return the CPU features that OpenCV uses on this machine, as it names them."""
    return " ".join(str(cv2.getCPUFeaturesLine()).split())


def opencv_major(recorded: dict[str, Any]) -> tuple[str, str]:
    """Return OpenCV's major version in a manifest's environment, or "" if not recorded, and on this machine."""
    version = recorded.get("opencv-python-headless")
    return version.split(".")[0] if isinstance(version, str) else "", cv2.__version__.split(".")[0]
