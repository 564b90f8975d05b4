"""Choose the floating-point precision of a run: 16 bits where the hardware computes in 16 bits."""

import contextlib
import logging
import re
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["bf16", "fp16", "fp32"]
PrecisionChoice = Literal["auto", "bf16", "fp16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_CPU_FLAGS: dict[Precision, set[str]] = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""Names that Linux uses on x86-64 and AArch64."""
logger = logging.getLogger(__name__)


def choose_precision(asked: PrecisionChoice, device: torch.device) -> Precision:
    """Return ``asked``. For ``auto`` return bf16 if the device computes in it, else fp16 on a GPU, fp32 on a CPU."""
    if asked != "auto":
        if device.type == "cpu" and asked != "fp32" and not cpu_has(asked):
            logger.info(f"this CPU has no instructions for {asked}; train.precision fp32 is likely faster")
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has("bf16") else "fp32"


def cpu_has(precision: Precision) -> bool:
    """Return whether this CPU has instructions for ``precision``; False if the system does not list instructions."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo(), re.MULTILINE)
    return flags is not None and not _CPU_FLAGS[precision].isdisjoint(flags[1].split())


def cpuinfo() -> str:
    """Return how Linux describes the CPUs, or an empty text on other systems."""
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8", "replace") if path.exists() else ""


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Return a context that computes in 16 bits where that is safe, or has no effect for fp32."""
    half = precision != "fp32"
    return torch.autocast(device.type, dtype=DTYPES[precision] if half else torch.bfloat16, enabled=half)
