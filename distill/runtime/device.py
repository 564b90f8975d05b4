"""The device a run computes on."""

import contextlib
import platform
from pathlib import Path

import torch

from distill.errors import DistillError
from distill.runtime.distributed import ALONE, Ranks


def processor(device: torch.device) -> str:
    """The name of a GPU; or a CPU's, with the vector units that torch uses of it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def pick_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device ``name``; ``auto`` is the GPU where there is one. Each of several ranks here has a GPU of its own.

    Raises:
        DistillError: there is no such device on this machine, or all ranks here would share it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.here > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise DistillError(f"--device {name}: is one GPU for {ranks.here} ranks; use cuda, or start one here")
        name = f"cuda:{ranks.local}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise DistillError(f"--device {name}: not supported; use auto, cpu or cuda")
        if device.type == "cuda" and ranks.here > 1:
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DistillError(
            f"--device {name}: not on this machine: {str(error).splitlines()[0][:80]}; use auto, cpu or cuda"
        ) from error
    return device
