"""What bounds a step on a machine: how much a step computes, and how fast large matrices are multiplied here."""

import statistics
from collections.abc import Callable

import torch
from plain_loop import now
from torch.utils.flop_counter import FlopCounterMode

from distill.models import build_model

MATRIX = 4096


def time_of(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of ``call``."""
    call()
    times = []
    for _ in range(repeats):
        started = now(device)
        call()
        times.append(now(device) - started)
    return statistics.median(times)


def flops_per_image(arch: tuple[str, str], teacher_passes: float) -> float:
    """Operations (a multiplication and an addition are two) of the student's step and of so many teacher's passes."""
    images = torch.zeros(2, 3, 32, 32)
    counts = []
    for name, training in ((arch[0], False), (arch[1], True)):
        model = build_model(name, 10).train(training)
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
            logits = model(images)
            if training:
                logits.sum().backward()
        counts.append(counter.get_total_flops() / len(images))
    return teacher_passes * counts[0] + counts[1]


def matrix_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Of a large matrix product, the most that convolutions can hope for."""
    a = torch.randn(MATRIX, MATRIX, device=device).to(dtype)
    return 2 * MATRIX**3 / time_of(lambda: a @ a, device)
