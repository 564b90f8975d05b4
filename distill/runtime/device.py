"""The device a run computes on."""

import contextlib
import platform
from pathlib import Path

import torch

from distill.errors import DistillError
from distill.runtime.distributed import SINGLE_PROCESS, Ranks


def processor(device: torch.device) -> str:
    """Return the name of a GPU, or of the CPU with the vector instructions that torch uses."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def pick_device(name: str, ranks: Ranks = SINGLE_PROCESS) -> torch.device:
    """Return the device ``name``; ``auto`` is the GPU if there is one. Each rank of a machine gets its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.local_world_size > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise DistillError(
                f"--device {name}: is one GPU for {ranks.local_world_size} ranks; use cuda, or start one here"
            )
        name = f"cuda:{ranks.local_rank}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise DistillError(f"--device {name}: not supported; use auto, cpu or cuda")
        if device.type == "cuda" and ranks.local_world_size > 1:
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DistillError(
            f"--device {name}: not on this machine: {str(error).splitlines()[0][:80]}; use auto, cpu or cuda"
        ) from error
    return device
