"""Which arithmetic a run uses: half precision where the hardware has it."""

import contextlib
import re
from pathlib import Path
from typing import Literal

import torch

from distill.errors import Say

Precision = Literal["bf16", "fp16", "fp32"]
PrecisionChoice = Literal["auto", "bf16", "fp16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_CPU_FLAGS: dict[Precision, set[str]] = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""As Linux names them on x86-64 and AArch64."""


def choose_precision(asked: PrecisionChoice, device: torch.device, say: Say) -> Precision:
    """``asked``, or for ``auto`` bf16 where ``device`` computes in it, fp16 on older GPUs, and fp32 on other CPUs."""
    if asked != "auto":
        if device.type == "cpu" and asked != "fp32" and not cpu_has(asked):
            say(f"this CPU does not compute in {asked} by itself; train.precision fp32 is likely faster")
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_has("bf16") else "fp32"


def cpu_has(precision: Precision) -> bool:
    """Whether this CPU has instructions for ``precision``; False where the system does not say."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", _cpuinfo(), re.MULTILINE)
    return flags is not None and not _CPU_FLAGS[precision].isdisjoint(flags[1].split())


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Half precision for the operations that gain from it; nothing with fp32."""
    half = precision != "fp32"
    return torch.autocast(device.type, dtype=DTYPES[precision] if half else torch.bfloat16, enabled=half)
