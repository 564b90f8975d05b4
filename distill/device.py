"""The device a run computes on."""

import torch

from distill.errors import DistillError


def pick_device(name: str) -> torch.device:
    """The device ``name``; ``auto`` is the GPU where there is one.

    Raises:
        DistillError: there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise DistillError(f"--device {name}: not supported; use auto, cpu or cuda")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DistillError(
            f"--device {name}: not on this machine: {str(error).splitlines()[0]}; use auto or cpu"
        ) from error
    return device
