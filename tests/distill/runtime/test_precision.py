"""Test which precision a run uses: half precision if the hardware supports it."""

import pytest
import torch

import distill.runtime.device
from distill.runtime.device import autocast, choose_precision, cpu_has

CPU = torch.device("cpu")
X86 = "processor\t: 0\nflags\t\t: fpu avx512f {}\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("info", "bf16", "fp16"),
    [
        (X86.format("avx512_bf16"), True, False),
        (X86.format("amx_bf16 avx512_fp16"), True, True),
        (X86.format(""), False, False),
        (ARM.format("asimdhp bf16"), True, True),
        (ARM.format(""), False, False),
        ("", False, False),
    ],
)
def test_what_the_system_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, info: str, bf16: bool, fp16: bool
) -> None:
    """The flags in /proc/cpuinfo decide which half precisions a CPU supports."""
    caplog.set_level("INFO")
    monkeypatch.setattr(distill.runtime.device, "cpuinfo", lambda: info)
    assert (cpu_has("bf16"), cpu_has("fp16")) == (bf16, fp16)
    assert choose_precision("auto", CPU) == ("bf16" if bf16 else "fp32") and not caplog.messages
    assert choose_precision("fp16", CPU) == "fp16" and len(caplog.messages) == (not fp16)
    assert choose_precision("fp32", CPU) == "fp32" and len(caplog.messages) == (not fp16)


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16"), (False, "fp16")])
def test_an_older_gpu_takes_fp16(monkeypatch: pytest.MonkeyPatch, has: bool, expected: str) -> None:
    """A GPU without bf16 uses fp16."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert choose_precision("auto", torch.device("cuda")) == expected


def test_autocast_is_of_the_precision() -> None:
    linear = torch.nn.Linear(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        with autocast(CPU, precision):
            assert linear(torch.ones(1, 2)).dtype == dtype
