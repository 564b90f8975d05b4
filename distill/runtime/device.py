"""Choose the device of a run."""

import platform
import re

import torch

from distill.errors import DistillError
from distill.runtime.distributed import SINGLE_PROCESS, Ranks
from distill.runtime.precision import cpuinfo


def processor(device: torch.device) -> str:
    """Return the name of a GPU, or the name of the CPU with the vector instructions that torch uses."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    named = re.search(r"^model name\s*:(.*)$", cpuinfo(), re.MULTILINE)
    name = named[1].strip() if named else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def pick_device(name: str, ranks: Ranks = SINGLE_PROCESS) -> torch.device:
    """Return the device ``name``. ``auto`` is the GPU if there is one. Each rank of a machine gets its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.local_world_size > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise DistillError(
                f"--device {name}: names one GPU, but {ranks.local_world_size} ranks run on this machine; "
                "use --device cuda, or start one rank on this machine"
            )
        name = f"cuda:{ranks.local_rank}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise DistillError(f"--device {name}: this device is not supported; use auto, cpu or cuda")
        if device.type == "cuda" and ranks.local_world_size > 1:
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DistillError(
            f"--device {name}: this machine does not have the device: {str(error).splitlines()[0][:80]}; "
            "use auto, cpu or cuda"
        ) from error
    return device
